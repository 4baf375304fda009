"""What commands and the dashboard show of encoded values: with the codec, and without."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from openworkflow import Cron, OpenWorkflow, RunHandle, Step, workflow
from openworkflow.codecs import Encryption
from tests.dashboard import served, words_of

SECRET = "hunter2"
KEY = Encryption.new_key()
MODULE = f"""
from openworkflow import Step, workflow
from openworkflow.codecs import Encryption

codec = Encryption({{"k1": "{KEY}"}})
no_codec = 7

def made():
    return [codec]

def broken():
    raise KeyError("{KEY}")

async def twice(value: str) -> str:
    return value + value

@workflow
async def doubled(value: str, step: Step) -> str:
    step.set_status(value)
    step.emit("said", value)
    return await step.run("double", twice, value)

@workflow(name="doubled")
async def changed(value: str, step: Step) -> str:
    return await step.run("other", twice, value)
"""


async def twice(value: str) -> str:
    return value + value


@workflow
async def doubled(value: str, step: Step) -> str:
    step.set_status(value)
    step.emit("said", value)
    return await step.run("double", twice, value)


class Said(NamedTuple):
    code: int | None
    out: str
    err: str


class Shell:
    """Runs commands in a folder that holds the module `coded`."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "coded.py").write_text(MODULE)
        self._folder, self._url = folder, url

    async def __call__(self, *args: str, codec: str | None = None, **env: str) -> Said:
        given = () if codec is None else ("--codec", codec)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openworkflow", *args, *given),
            cwd=self._folder,
            env=os.environ | {"DATABASE_URL": self._url, "COLUMNS": "200"} | env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert KEY not in out.decode() + err.decode()
        assert "Traceback" not in err.decode()
        return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
def shell(tmp_path: Path, database_url: str) -> Shell:
    return Shell(tmp_path, database_url)


@pytest.fixture
def coded(ow: OpenWorkflow) -> OpenWorkflow:
    return OpenWorkflow(ow._backend, codec=Encryption({"k1": KEY}))


async def _ended(coded: OpenWorkflow, value: str = SECRET) -> RunHandle[str]:
    worker = coded.new_worker(workflows=[doubled])
    await worker.start()
    try:
        run = await coded.run_workflow(doubled, value)
        assert await run.result("20s") == value * 2
    finally:
        await worker.stop()
    return run


async def test_commands_show_values_with_the_codec_and_say_what_they_are_without(
    coded: OpenWorkflow, shell: Shell
) -> None:
    run = str((await _ended(coded)).id)
    await coded.schedules.create("yearly", doubled, Cron("0 0 1 1 *", input=SECRET))
    commands = [
        ("runs", "show", run),
        ("runs", "list"),
        ("runs", "events", run),
        ("schedules", "show", "yearly"),
    ]

    for command in commands:
        without, by_option, by_environment = await asyncio.gather(
            shell(*command),
            shell(*command, codec="coded:codec"),
            shell(*command, OPENWORKFLOW_CODEC="coded:made"),
        )
        assert (without.code, by_option.code) == (0, 0)
        assert "encrypted with key 'k1'" in without.out
        assert SECRET not in without.out
        assert SECRET in by_option.out
        assert by_environment.out == by_option.out

    raw = json.loads((await shell("runs", "show", run, "--json")).out)
    assert raw["run"]["output"]["$ow"]["by"] == ["aes-gcm:k1"]
    assert SECRET not in (await shell("runs", "export")).out


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_worker_and_commands_that_start_runs_encode_them(
    shell: Shell, ow: Any, processes: str
) -> None:
    env = {"OPENWORKFLOW_CODEC": "coded:codec"}
    worker = asyncio.create_task(_worker(shell, processes))
    try:
        ran = await shell("run", "doubled", "--input", f'"{SECRET}"', "--wait", **env)
    finally:
        worker.cancel()
        await asyncio.wait({worker})

    assert (ran.code, ran.out.strip()) == (0, f'"{SECRET * 2}"')
    (found,) = (await ow.list_runs()).runs
    assert found.input.keys() == found.output.keys() == {"$ow"}
    unread = await shell("run", "doubled", "--input", '"x"', "--wait", "--timeout", "1ms", **env)
    assert "did not finish" in unread.err


async def _worker(shell: Shell, processes: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", "coded:doubled", "--port", "0"),
        *("--codec", "coded:codec", "--processes", processes),
        cwd=shell._folder,
        env=os.environ | {"DATABASE_URL": shell._url},
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("of", ["a database", "a file"])
async def test_a_replay_is_checked_with_the_codec_and_says_what_it_cannot_read(
    coded: OpenWorkflow, shell: Shell, of: str
) -> None:
    await _ended(coded)
    where: tuple[str, ...] = ()
    if of == "a file":
        await shell("runs", "export", "--output", "runs.jsonl")
        where = ("--from-file", "runs.jsonl")

    fine = await shell("replay-check", "coded:doubled", *where, codec="coded:codec")
    changed = await shell("replay-check", "coded:changed", *where, codec="coded:codec")
    unread = await shell("replay-check", "coded:doubled", *where)

    assert (fine.code, changed.code, unread.code) == (0, 3, 3)
    assert "1 run replayed, 0 would break" in fine.out
    assert "NonDeterminism" in changed.out
    assert "encrypted with key 'k1'" in unread.out
    assert "--codec, or OPENWORKFLOW_CODEC" in unread.out


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        ("coded", "names no codec; give module:name"),
        ("coded:missing", "coded has no 'missing'"),
        ("coded:no_codec", "codec is a codec or a list of them"),
        ("coded:broken", "could not be called to make a codec: KeyError"),
        ("absent:codec", "there is no module 'absent'"),
    ],
)
async def test_a_codec_that_cannot_be_had_is_one_line(shell: Shell, codec: str, says: str) -> None:
    said = await shell("runs", "list", codec=codec)

    assert said.code == 1
    assert says in said.err


async def test_the_dashboard_shows_values_with_the_codec_and_says_what_they_are_without(
    ow: OpenWorkflow, coded: OpenWorkflow
) -> None:
    run = await _ended(coded)
    page = f"/n/default/runs/{run.id}"

    async with served(ow) as visitor:
        status, html = await visitor.get(page)
    assert status == 200
    assert (
        unescape(words_of(html)).count("encrypted with key 'k1'") == 4
    )  # status, step, input, output
    assert "$ow" not in html

    async with served(coded) as visitor:
        status, html = await visitor.get(page)
    assert status == 200
    assert f'"{SECRET * 2}"' in unescape(words_of(html))
    assert "encrypted with" not in html


async def test_a_long_encoded_result_is_described_on_the_dashboard(
    ow: OpenWorkflow, coded: OpenWorkflow
) -> None:
    run = await _ended(coded, "long " * 600)

    for client in (ow, coded):
        async with served(client) as visitor:
            _, html = await visitor.get(f"/n/default/runs/{run.id}")
        assert "encrypted with key 'k1', 8," in unescape(words_of(html))
