"""OpenWorkflow in the public harness: a producer, a worker and an observer in one process.

What is asked for comes in environment variables; what is seen goes out as lines of JSON; SIGTERM
ends it. `CONTRIBUTING_ADAPTERS.md` of hardbyte/postgresql-job-queue-benchmarking says which. A job
is a run with one step, so that its result is durable, as it is for people who use this library.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.harness.rolling import Rolling
from openworkflow import BackendError, BackendPostgres, OpenWorkflow, Step, Workflow, workflow

MANIFEST: Mapping[str, Any] = json.loads((Path(__file__).parent / "adapter.json").read_text())
WINDOW = 30.0
OBSERVE_EVERY = 0.25

#: Each part is found by its index, so that what has ended costs nothing.
DEPTHS = """
SELECT (SELECT count(*) FROM workflow_runs WHERE namespace_id = 'default' AND status = 'pending'
           AND available_at <= now()) AS queue_depth,
       (SELECT count(*) FROM workflow_runs WHERE namespace_id = 'default' AND status = 'pending'
           AND available_at > now()) AS scheduled_depth,
       (SELECT count(*) FROM workflow_runs WHERE namespace_id = 'default' AND status = 'running')
           AS running_depth
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the harness asks for."""

    url: str
    sample_every: float
    rate: float
    mode: str
    depth: int
    workers: int
    payload: int
    work_seconds: float
    batch_seconds: float
    batch_most: int
    rate_file: str | None
    instance: int
    produces: bool

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Asked:
        """Read the variables; KeyError without DATABASE_URL."""
        instance = int(env.get("BENCH_INSTANCE_ID") or 0)
        alone = int(env.get("PRODUCER_ONLY_INSTANCE_ZERO") or 0) == 1
        return cls(
            url=env["DATABASE_URL"],
            sample_every=float(env.get("SAMPLE_EVERY_S", 5)),
            rate=float(env.get("PRODUCER_RATE", 800)),
            mode=env.get("PRODUCER_MODE", "fixed"),
            depth=int(env.get("TARGET_DEPTH", 1000)),
            workers=int(env.get("WORKER_COUNT", 32)),
            payload=int(env.get("JOB_PAYLOAD_BYTES", 256)),
            work_seconds=float(env.get("JOB_WORK_MS", 1)) / 1000,
            batch_seconds=float(env.get("PRODUCER_BATCH_MS", 25)) / 1000,
            batch_most=int(env.get("PRODUCER_BATCH_MAX", 128)),
            rate_file=env.get("PRODUCER_RATE_CONTROL_FILE") or None,
            instance=instance,
            produces=instance == 0 or not alone,
        )

    def rate_now(self) -> float:
        """Jobs a second; the harness may change it while this runs."""
        try:
            return self.rate if self.rate_file is None else float(Path(self.rate_file).read_text())
        except (OSError, ValueError):
            return self.rate


@dataclass(slots=True)
class Seen:
    """What there is to tell."""

    enqueued: int = 0
    completed: int = 0
    depths: dict[str, int] = field(default_factory=dict)
    latencies: dict[str, Rolling] = field(
        default_factory=lambda: {
            name: Rolling(WINDOW) for name in ("producer", "claim", "end_to_end")
        }
    )


def make_job(asked: Asked, seen: Seen) -> Workflow[dict[str, Any], None]:
    """The job: it waits as long as its work takes."""

    async def work(enqueued_at: float) -> None:
        began = time.time()
        seen.latencies["claim"].add((began - enqueued_at) * 1000, began)
        await asyncio.sleep(asked.work_seconds)
        seen.completed += 1
        ended = time.time()
        seen.latencies["end_to_end"].add((ended - enqueued_at) * 1000, ended)

    @workflow(name="bench_job")
    async def bench_job(input: dict[str, Any], step: Step) -> None:
        await step.run("work", work, input["enqueued_at"])

    return bench_job


async def produce(ow: OpenWorkflow, asked: Asked, seen: Seen) -> None:
    """Enqueue at the rate that is asked for, by the clock and not by the count of batches."""
    credit, last = 0.0, time.monotonic()
    padding = "x" * max(0, asked.payload - 96)
    while True:
        now = time.monotonic()
        credit, last = credit + asked.rate_now() * (now - last), now
        if asked.mode == "depth-target":
            credit = max(0, asked.depth - seen.depths.get("queue_depth", 0))
        count = min(asked.batch_most, int(credit))
        if count:
            job = {"enqueued_at": time.time(), "padding": padding}
            try:
                await ow.run_workflows("bench_job", [job] * count)
            except BackendError as error:  # the harness restarts the server, and kills backends
                say("log", text=f"not enqueued: {error}")
            else:
                seen.enqueued += count
                took = (time.monotonic() - now) * 1000 / count
                seen.latencies["producer"].add(took, time.time(), count)
            credit -= count
        await asyncio.sleep(0 if credit >= asked.batch_most else asked.batch_seconds)


async def observe(asked: Asked, seen: Seen) -> None:
    """Count what is there, over a connection of its own."""
    connection: asyncpg.Connection[Any] | None = None
    while True:
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(asked.url, timeout=5)
            seen.depths = dict(await connection.fetchrow(DEPTHS, timeout=30) or {})
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if connection is not None:
                connection.terminate()
            connection = None
        await asyncio.sleep(OBSERVE_EVERY)


async def sample(asked: Asked, seen: Seen) -> None:
    """Tell all metrics at each full interval of the wall clock."""
    enqueued, completed = seen.enqueued, seen.completed
    while True:
        await asyncio.sleep(asked.sample_every - time.time() % asked.sample_every)
        told: dict[str, tuple[float, float]] = {
            "enqueue_rate": (
                (seen.enqueued - enqueued) / asked.sample_every,
                asked.sample_every,
            ),
            "completion_rate": (
                (seen.completed - completed) / asked.sample_every,
                asked.sample_every,
            ),
        }
        enqueued, completed = seen.enqueued, seen.completed
        for name, rolling in seen.latencies.items():
            found = rolling.percentiles((50, 95, 99), time.time())
            for percent, value in zip((50, 95, 99), found or (), strict=False):
                told[f"{name}_p{percent}_ms"] = (value, WINDOW)
                if name == "claim":
                    told[f"subscriber_p{percent}_ms"] = (value, WINDOW)
        if asked.instance == 0:
            depths = {name: (float(count), 0.0) for name, count in seen.depths.items()}
            total = (float(sum(seen.depths.values())), 0.0)
            told |= depths | {"retryable_depth": (0.0, 0.0), "total_backlog": total}
            told["producer_target_rate"] = (asked.rate_now(), 0.0)
        _tell(asked, told)


def _tell(asked: Asked, told: Mapping[str, tuple[float, float]]) -> None:
    at = _now()
    for metric, (value, window) in told.items():
        about = {"subject_kind": "adapter", "subject": "", "metric": metric, "value": value}
        say("adapter", t=at, window_s=window, instance_id=asked.instance, **about)


def say(kind: str, **more: object) -> None:
    """One line for the harness."""
    print(json.dumps({"kind": kind, "system": MANIFEST["system"], **more}), flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def main() -> None:
    """Produce, work and tell until SIGTERM."""
    scenario = os.environ.get("SCENARIO", "long_horizon")
    if scenario != "long_horizon":
        raise SystemExit(f"there is no scenario {scenario!r} here; there is long_horizon")
    asked, seen, ended = Asked.of(os.environ), Seen(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with await BackendPostgres.connect(asked.url) as backend:
        ow = OpenWorkflow(backend)
        say(
            "descriptor",
            event_tables=MANIFEST["event_tables"],
            extensions=[],
            version=version("openworkflow-fleet"),
            schema_version=version("openworkflow-fleet"),
            db_name=MANIFEST["db_name"],
            started_at=_now(),
            instance_id=asked.instance,
        )
        worker = ow.new_worker(workflows=[make_job(asked, seen)], concurrency=asked.workers)
        tasks = [asyncio.create_task(sample(asked, seen))]
        if asked.instance == 0:
            tasks.append(asyncio.create_task(observe(asked, seen)))
        await worker.start()
        if asked.produces:
            tasks.append(asyncio.create_task(produce(ow, asked, seen)))
        ending = asyncio.create_task(ended.wait())
        await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, ending):
            task.cancel()
        await worker.stop()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Exception):
                raise found


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
