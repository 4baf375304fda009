"""A worker process that kills itself with SIGKILL at one boundary of a step's life.

    python victim.py DATABASE_URL BOUNDARY

Boundaries: claimed, before, during, after, before-commit, after-commit, ended, never. Each call
of a step function adds a row to the table `ledger`, in a transaction of its own.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import asyncpg

from openworkflow import BackendPostgres, NonRetryableError, OpenWorkflow, Step, workflow
from openworkflow.backend.backend import WorkerSession
from openworkflow.backend.records import Completion, RunEnd, StepSuccess, StepWrite
from openworkflow.engine.recorder import Recorder

URL, BOUNDARY = sys.argv[1:3]
TARGET = "second"
TARGETS = (TARGET, "undo:middle")


def die_at(boundary: str) -> None:
    """End this process as a kernel or an out-of-memory killer would."""
    if boundary == BOUNDARY:
        os.kill(os.getpid(), signal.SIGKILL)


async def note(name: str) -> str:
    """A step: what it does is one row in the ledger."""
    if name in TARGETS:
        die_at("before")
    connection = await asyncpg.connect(URL)
    try:
        await connection.execute(
            "INSERT INTO ledger (step, pid) VALUES ($1, $2)", name, os.getpid()
        )
    finally:
        await connection.close()
    if name in TARGETS:
        die_at("during")
    return f"{name} done"


async def take_back(done: str) -> None:
    """The undo of a step."""
    await note(f"undo:{done.partition(' ')[0]}")


@workflow
async def three_steps(step: Step) -> list[str]:
    """The run under test."""
    die_at("claimed")
    return [await step.run(name, note, name) for name in ("first", "second", "third")]


@workflow
async def three_signals(step: Step) -> list[int]:
    """A run that waits, of which the second wait is where it dies."""
    die_at("claimed")
    return [await step.wait_for_signal(name, type=int) for name in ("first", TARGET, "third")]


@workflow
async def noted(name: str, step: Step) -> str:
    """A child, whose step dies as that of any run."""
    return await step.run("note", note, name)


@workflow
async def three_children(step: Step) -> list[str]:
    """A run that waits for others, of which the second is where it dies."""
    die_at("claimed")
    names = ("first", TARGET, "third")
    return [await step.run_workflow(name, noted, name) for name in names]


@workflow
async def mapped_children(step: Step) -> list[str]:
    """A run with one row, called as the step at which it dies."""
    die_at("claimed")
    names = ["first", "middle", TARGET, "last"]
    return await step.map(TARGET, noted, names, concurrency=2)


@workflow
async def three_undone(step: Step) -> None:
    """A run that fails, and what it did is undone."""
    die_at("claimed")
    for name in ("start", "middle", "end"):
        await step.run(name, note, name, undo=take_back)
    raise NonRetryableError("no")


def _arm() -> None:
    succeeded, flush = Recorder.succeeded, WorkerSession.flush

    end_wait = Recorder.end_wait

    def armed_end_wait(self: Recorder, call: Any, *args: Any, **columns: Any) -> None:
        if call.key == TARGET:
            die_at("after")
        end_wait(self, call, *args, **columns)

    def armed_succeeded(self: Recorder, call: Any, output: str | None) -> Any:
        if call.key in TARGETS:
            die_at("after")
        return succeeded(self, call, output)

    async def armed_flush(self: WorkerSession, batch: Any) -> Any:
        rows = batch.rows
        steps = (*rows.get(StepSuccess, ()), *rows.get(StepWrite, ()))
        ends = any(
            write.step_name in TARGETS and getattr(write, "status", "") != "running"
            for write in steps
        )
        carries = any(write.step_name == TARGET for write in steps) or ends
        decides = any(write.step_name == "undo" for write in steps)
        if carries:
            die_at("before-commit")
        if decides:
            die_at("before-decision")
        flushed = await flush(self, batch)
        if carries:
            die_at("after-commit")
        if decides:
            die_at("after-decision")
        if Completion in rows or any(end.status == "failed" for end in rows.get(RunEnd, ())):
            die_at("ended")
        return flushed

    setattr(Recorder, "end_wait", armed_end_wait)  # noqa: B010
    setattr(Recorder, "succeeded", armed_succeeded)  # noqa: B010 - mypy guards methods
    setattr(WorkerSession, "flush", armed_flush)  # noqa: B010


async def main() -> None:
    """Work until killed."""
    _arm()
    backend = await BackendPostgres.connect(URL)
    worker = OpenWorkflow(backend).new_worker(
        workflows=[
            three_steps,
            three_signals,
            three_children,
            mapped_children,
            noted,
            three_undone,
        ],
        concurrency=5,
        lease=timedelta(seconds=1),
    )
    await worker.run_until_signal()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
