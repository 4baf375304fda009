"""`--json`: each command answers with JSON objects, as docs/scripts.md lists them, errors too."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import click
import pytest

from openworkflow import BackendPostgres, Cron, Limit, OpenWorkflow, Step, workflow
from openworkflow.cli.main import cli, main
from openworkflow.core.errors import ResultTimeout
from openworkflow.core.workflow_run import WorkflowRun
from tests.helpers import StartWorker
from tests.postgres import run_sync

PAGE = Path(__file__).parents[2] / "docs" / "scripts.md"
ROW = re.compile(r"^\| `([a-z -]+)` \| (`[^|]*`) \|", re.MULTILINE)
WITHOUT = {"completion", "dashboard", "dev", "mcp", "worker"}
"""A shell's own language, and programs that serve until they are stopped."""
MODULE = """
from openworkflow import Step, workflow

@workflow
async def order(number: int, step: Step) -> int:
    return number
"""
RUN = {field.name for field in dataclasses.fields(WorkflowRun)}
NOBODY = "0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a"


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


def command(*args: str, url: str | None = None) -> Done:
    """A command in this process, with the error boundary of the real one."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = sys.argv
    sys.argv = ["openworkflow", *args, *(() if url is None else ("--url", url))]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as done:
        code = int(done.code or 0)
    finally:
        sys.argv = argv
    return Done(code, out.getvalue(), err.getvalue())


def commands(group: click.Group = cli, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command of the parser by its whole name."""
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from commands(found, f"{above}{name} ")
        else:
            yield f"{above}{name}", found


def documented() -> dict[str, set[str]]:
    """The keys of each command's objects, as the page lists them."""
    found = ROW.findall(PAGE.read_text())
    return {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in found}


def test_every_command_takes_json_and_the_page_lists_its_object() -> None:
    taking = {n for n, c in commands() if any(each.name == "as_json" for each in c.params)}

    assert {name for name, _ in commands()} - WITHOUT == taking
    assert taking == set(documented())


@workflow(limits=[Limit(5, name="pool")], schedule=Cron("0 3 * * *", name="nightly"))
async def nightly(step: Step) -> str:
    step.emit("stage", "counting")
    return "done"


@workflow(name="order")
async def order(number: int, step: Step) -> int:
    if number < 0:
        raise ValueError("no such order")
    return number


@pytest.fixture
def stocked(database_url: str) -> dict[str, str]:
    """A database with a run of each kind, a schedule, a limit, a build; the ids of the runs."""

    async def stock() -> dict[str, str]:
        async with await BackendPostgres.connect(database_url) as backend:
            ow = OpenWorkflow(backend)
            async with ow.new_worker(workflows=[nightly, order]):
                told = await ow.run_workflow(nightly)
                failed = await ow.run_workflow(order, -1)
                await told.result(timeout="20s")
                with contextlib.suppress(Exception):
                    await failed.result(timeout="20s")
            open_run = await ow.run_workflow("nobody-serves-it")
            kept = await ow.run_workflow("nobody-serves-it")
        sql = await asyncpg.connect(database_url)
        await sql.execute(
            "insert into workflow_builds (namespace_id, build_id) values ('default', 'old'), "
            "('default', 'new')"
        )
        await sql.close()
        ids = (told.id, failed.id, open_run.id, kept.id)
        return dict(zip(("told", "failed", "open", "kept"), map(str, ids), strict=True))

    return run_sync(stock)


def calls(ids: dict[str, str], folder: Path) -> list[tuple[str, ...]]:
    """A call of every command, in an order in which each has something to answer."""
    (module := folder / "orders_of_json.py").write_text(MODULE)
    return [
        ("init", str(folder / "project")),
        ("migrate",),
        ("migrate", "--dry-run"),
        ("migrate", "--status"),
        ("migrate", "--roles", "--dry-run"),
        ("doctor",),
        ("builds", "list"),
        ("builds", "promote", "new"),
        ("builds", "promote", "old", "--share", "10"),
        ("builds", "hold", "old"),
        ("builds", "retire", "old"),
        ("limits", "list"),
        ("limits", "set", "pool", "3", "--rate", "20"),
        ("limits", "pause", "pool", "--for", "1m"),
        ("limits", "resume", "pool"),
        ("limits", "delete", "pool"),
        ("schedules", "list"),
        ("schedules", "show", "nightly"),
        ("schedules", "pause", "nightly"),
        ("schedules", "resume", "nightly"),
        ("schedules", "trigger", "nightly"),
        ("schedules", "backfill", "nightly", "--from", "2026-03-02", "--to", "2026-03-05"),
        ("schedules", "delete", "nightly"),
        ("run", "nobody-serves-it"),
        ("run", str(module), "--input", "7"),
        ("runs", "list"),
        ("runs", "show", ids["told"]),
        ("runs", "explain", ids["open"]),
        ("runs", "events", ids["told"]),
        ("runs", "export"),
        ("runs", "pause", ids["open"]),
        ("runs", "resume", ids["open"]),
        ("runs", "pause", "--where", "workflow:nobody-serves-it"),
        ("runs", "resume", "--where", "workflow:nobody-serves-it"),
        ("runs", "cancel", ids["open"]),
        ("runs", "retry", ids["failed"]),
        ("runs", "fork", ids["told"]),
        ("runs", "retry", "--where", "status:canceled"),
        ("runs", "cancel", "--where", "workflow:nobody-serves-it", "--dry-run"),
        ("runs", "delete", "--where", "status:canceled"),
        ("signal", ids["kept"], "paid"),
        ("pause", "order"),
        ("pauses",),
        ("resume", "order"),
        ("replay-check", str(module), "--workflow", "order"),
        ("prune", "--older-than", "0s"),
        ("prune", "--dry-run"),
    ]


def test_every_command_answers_with_objects_that_have_the_keys_of_the_page(
    stocked: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    page = documented()
    seen: dict[str, set[str]] = {name: set() for name in page}
    for args in calls(stocked, tmp_path):
        done = command(*args, "--json", url=None if args[0] == "init" else database_url)
        assert done.code in (0, 3) and done.documents, (args, done)  # noqa: PT018
        name = args[0] if args[0] in page else " ".join(args[:2])
        for document in done.documents:
            if name != "run" and set(document) == RUN:
                continue
            seen[name] |= set(document)
    assert page == seen


@pytest.mark.parametrize(
    ("args", "code", "kind", "message"),
    [
        (("runs", "show", NOBODY), 1, "RunNotFound", NOBODY),
        (("runs", "show", "7"), 2, "BadParameter", "'7' is not a run id"),
        (("runs", "shwo"), 2, "NoSuchCommand", "shwo"),
        (("runs", "cancel"), 2, "UsageError", "which runs? give a run's id, or --where"),
        (("run", "order", "--input", "{"), 2, "UsageError", "--input is not JSON"),
        (("limits", "delete", "none"), 1, "ConfigurationError", "limit 'none' is not set"),
        (("worker", "nothing.here"), 2, "NoSuchOption", "--json"),
    ],
)
def test_an_error_is_one_object_on_standard_error(
    args: tuple[str, ...], code: int, kind: str, message: str, database_url: str
) -> None:
    done = command(*args, "--json", url=None if args[0] == "worker" else database_url)

    assert (code, "", 1) == (done.code, done.out, len(done.err.splitlines()))
    assert (kind, code) == (done.error["type"], done.error["exit_code"])
    assert message in done.error["message"]
    assert {"type", "message", "page", "exit_code"} == set(done.error)


def test_an_error_names_the_page_that_says_more(database_url: str) -> None:
    done = command("runs", "show", NOBODY, "--json", url=database_url)

    assert "docs/errors.md#runnotfound" == done.error["page"]


async def test_who_waits_gets_the_run_however_it_ended(
    database_url: str, start_worker: StartWorker
) -> None:
    await start_worker(order)

    async def wait(*args: str) -> Done:
        return await asyncio.to_thread(command, "run", *args, "--wait", "--json", url=database_url)

    well = await wait("order", "--input", "1")
    badly = await wait("order", "--input", "-1")
    late = await wait("nobody-serves-it", "--timeout", "0.1s")

    assert [(0, 1), (3, None), (4, None)] == [
        (each.code, each.documents[0]["output"]) for each in (well, badly, late)
    ]
    assert "" == well.err
    assert ["failed", "pending"] == [each.documents[0]["status"] for each in (badly, late)]
    assert ["WorkflowFailed", ResultTimeout.__name__] == [
        each.error["type"] for each in (badly, late)
    ]


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("runs", "cancel", "--where", "workflow:nobody-serves-it"), "2/2"),
        (("prune", "--older-than", "0s", "--yes"), "1/1"),
    ],
)
def test_progress_is_shown_on_a_terminal_and_to_nobody_else(
    args: tuple[str, ...], shown: str, stocked: dict[str, str], database_url: str
) -> None:
    """A log of CI had a bar in it."""
    on_terminal = with_terminal(*args, "--dry-run", url=database_url)
    elsewhere = command(*args, "--dry-run", url=database_url)
    looked_at = with_terminal(*args, url=database_url)

    assert shown not in on_terminal + elsewhere.err
    assert shown in looked_at


def test_migrate_says_on_a_terminal_what_it_is_at(empty_database_url: str) -> None:
    assert "applying 0001 initial" in with_terminal("migrate", url=empty_database_url)
    assert "" == command("migrate", url=empty_database_url).err


def with_terminal(*args: str, url: str) -> str:
    """What a command shows on the terminal that is its standard error."""
    ours, its = os.openpty()
    with contextlib.ExitStack() as last:
        last.callback(os.close, ours)
        try:
            subprocess.run(
                [sys.executable, "-m", "openworkflow", *args, "--url", url],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=its,
                check=True,
                timeout=60,
            )
        finally:
            os.close(its)
        text = b""
        with contextlib.suppress(OSError):  # what the end of a terminal is on Linux
            while part := os.read(ours, 65536):
                text += part
        return text.decode()
