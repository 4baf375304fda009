"""`openworkflow worker --processes N`: to whoever runs it, one worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openworkflow import OpenWorkflow
from tests.helpers import eventually

WORKFLOWS = """
import asyncio, os
from openworkflow import Step, workflow

async def where() -> int:
    await asyncio.sleep(0.05)
    return os.getpid()

@workflow
async def placed(step: Step) -> int:
    return await step.run("where", where)

async def die() -> None:
    os.kill(os.getpid(), 9)

@workflow
async def deadly(step: Step) -> None:
    await step.run("die", die)

async def linger() -> None:
    await asyncio.sleep(600)

@workflow
async def endless(step: Step) -> None:
    await step.run("linger", linger)
"""


@dataclass
class Command:
    """`openworkflow worker` at work."""

    process: asyncio.subprocess.Process
    port: int
    said: list[str]

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def samples(self, name: str) -> dict[str, float]:
        """A metric without other labels, by process."""
        _, text = await self.get("/metrics")
        return {
            sample.labels["process"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def command_lines(self) -> list[bytes]:
        return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.children()]

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    folder: Path, url: str, *more: str, processes: int = 2, **settings: str
) -> AsyncIterator[Command]:
    (folder / "shop.py").write_text(WORKFLOWS)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OPENWORKFLOW_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", "shop", "--port", "0"),
        *("--processes", str(processes), "--log-format", "human", *more),
        cwd=folder,
        env=environ | {"DATABASE_URL": url, "OPENWORKFLOW_LEASE_SECONDS": "2"} | settings,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said: list[str] = []
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def listen(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            said.append(line.decode())
            if "metrics and health on port" in said[-1] and not heard.done():
                heard.set_result(int(said[-1].split()[-1]))

    listening = asyncio.create_task(listen(process.stderr))
    try:
        async with asyncio.timeout(60):
            command = Command(process, await heard, said)
        yield command
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening  # which is over when the last process of the group has let go


async def test_they_are_ready_together_share_the_slots_and_drain_at_once(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    async with serving(tmp_path, database_url, "--concurrency", "7") as command:
        await eventually(command.is_ready)
        runs = [await ow.run_workflow("placed") for _ in range(40)]
        places = {await run.result(timeout=60) for run in runs}

        assert places == {*command.children()}
        assert {"0": 4, "1": 3} == await command.samples("openworkflow_worker_slots")
        finished = await command.samples("openworkflow_workflow_run_finished_total")
        assert {"0", "1"} == {*finished}
        assert 0 == await command.stop()


async def test_the_death_of_one_costs_the_others_nothing_and_is_made_good(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    async with serving(tmp_path, database_url) as command:
        await eventually(command.is_ready)
        before = {*command.children()}
        deadly = await ow.run_workflow("deadly")
        await eventually(lambda: any("(SIGKILL) and starts again" in line for line in command.said))
        await deadly.cancel()
        runs = [await ow.run_workflow("placed") for _ in range(10)]

        assert {await run.result(timeout=60) for run in runs}
        await eventually(command.is_ready)
        assert 2 == len(command.children())
        assert before != {*command.children()}
        assert 200 == (await command.get("/livez"))[0]
        assert 0 == await command.stop()


async def test_a_mistake_is_told_once_and_ends_the_command(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, database_url, "nosuch", processes=3) as command:
        async with asyncio.timeout(60):
            assert 1 == await command.process.wait()

    assert 1 == sum("there is no module 'nosuch'" in line for line in command.said), command.said


async def test_processes_without_a_parent_drain(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, database_url) as command:
        await eventually(command.is_ready)
        children = command.children()
        command.process.kill()
        await command.process.wait()

        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


async def test_a_second_signal_cuts_the_drain_of_all_short(
    tmp_path: Path, database_url: str, ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    async with serving(tmp_path, database_url, OPENWORKFLOW_DRAIN_SECONDS="300") as command:
        await eventually(command.is_ready)
        for _ in range(2):
            await ow.run_workflow("endless")
        await eventually(
            lambda: sql.fetchval("select count(*) = 2 from workflow_runs where status = 'running'")
        )
        command.process.send_signal(signal.SIGINT)
        await eventually(lambda: any("drain" in line for line in command.said))
        assert (503, "draining\n") == await command.get("/readyz")

        assert 0 == await command.stop()

    assert 2 == await sql.fetchval("select count(*) from workflow_runs where status = 'pending'")


async def test_the_password_is_in_no_command_line(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, "postgresql://nobody@localhost:1/x", "--url", database_url) as on:
        await eventually(on.is_ready)

        lines = on.command_lines()
        assert 2 == len(lines)
        assert not any(database_url.encode() in line for line in lines)


@pytest.mark.parametrize("settings", [{}, {"OPENWORKFLOW_PROCESSES": "4"}])
async def test_each_process_has_to_have_a_slot(
    tmp_path: Path, database_url: str, settings: dict[str, str]
) -> None:
    (tmp_path / "shop.py").write_text(WORKFLOWS)
    options = [] if settings else ["--processes", "4"]
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", "shop", "--concurrency", "3", *options),
        cwd=tmp_path,
        env=os.environ | {"DATABASE_URL": database_url} | settings,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, said = await done.communicate()

    assert 1 == done.returncode
    assert "error: 4 processes cannot share 3 slots" in said.decode()
