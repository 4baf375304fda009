"""What commands print of stored data: each value as it is, and nothing that a terminal obeys.

Workflow names, errors, step names and builds come from whoever may start runs. Markup in them ended
`runs show` with a traceback; `[true,false]` was shown as nothing; control characters reached the
terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openworkflow.cli.main import main
from openworkflow.core.printable import printable, printable_json
from tests.postgres import run_sync

HOSTILE = (
    "[/var/log/x]",
    "[true,false]",
    "[bold]",
    ":smile:",
    "\x1b[2J",
    "\x9b31m",
    "\x1b]0;t\x07",
    "a\rb",
    "\u202e",
    "\x7f",
    "\\",
    "'",
)
TEXTS = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=4
)
DONE, FAILED, WAITING = UUID(int=1), UUID(int=2), UUID(int=3)


MODULE = """
from openworkflow import workflow

@workflow
async def served_here() -> None: ...
"""


class Shown(NamedTuple):
    out: str
    err: str

    def says(self, value: str) -> bool:
        """Whatever the width of columns, and where a line was folded."""
        return "".join(value.split()) in "".join(self.out.split())

    def shows(self, value: str) -> bool:
        """Ends of lines are escaped in rows of a table, and kept elsewhere."""
        return any(self.says(printable(value, lines=lines)) for lines in (False, True))


def command(*args: str, url: str) -> Shown:
    """A command in this process, with the error boundary of the real one."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["openworkflow", *args, "--url", url]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.suppress(SystemExit),
        ):
            main()
    finally:
        sys.argv = argv
    return Shown(out.getvalue(), err.getvalue())


def store(url: str, texts: list[str], value: Any) -> None:
    """Three runs, two of which ended, with these texts wherever a table takes any."""
    name, version, worker, build, step, kind, error_type, message = texts

    async def write() -> None:
        sql = await asyncpg.connect(url)
        await sql.execute("truncate workflow_runs, step_attempts, workflow_builds")
        for run_id, status in ((DONE, "succeeded"), (FAILED, "failed"), (WAITING, "pending")):
            error = {"type": f"m:{error_type}", "message": message}
            output = json.dumps(value) if run_id == DONE else None
            await sql.execute(
                "insert into workflow_runs (id, workflow_name, version, status, worker_id,"
                " build_id, input, output, error, available_at, completed_at, idempotency_key)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now(), $4)",
                *(run_id, name, version, status, worker, build, json.dumps(value), output),
                json.dumps(error) if run_id == FAILED else None,
            )
            await sql.execute(
                "insert into step_attempts (workflow_run_id, step_name, kind, status, error)"
                " values ($1, $2, $3, 'failed', $4)",
                *(run_id, step, kind, json.dumps(error)),
            )
        await sql.execute(
            "insert into workflow_builds (namespace_id, build_id) values ('default', $1)", build
        )
        await sql.close()

    run_sync(write)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(TEXTS, min_size=8, max_size=8), value=TEXTS | st.lists(st.booleans()))
@example(texts=list(HOSTILE[:8]), value=[True, False])
@example(texts=list(HOSTILE[-8:]), value="[/x] \x1b[2J")
@example(texts=["0\n3"] * 8, value="0\n3")
def test_every_command_shows_stored_values_as_they_are(
    texts: list[str], value: Any, database_url: str, tmp_path: Path
) -> None:
    store(database_url, texts, value)
    name, version, worker, build, step, kind, _, message = texts
    run: Callable[..., Shown] = lambda *args: command(*args, url=database_url)  # noqa: E731
    (module := tmp_path / "served_here.py").write_text(MODULE)
    tables = {
        ("runs", "list"): [name, version, worker],
        ("runs", "show", str(DONE)): [name, version, worker, build, step, kind],
        ("runs", "show", str(FAILED)): [printable(message, lines=True), step],
        ("builds", "list"): [build],
        ("doctor",): [],
        ("replay-check", str(module)): [name, version],
    }
    for args, values in tables.items():
        shown = run(*args)
        assert "" == shown.err
        assert shown.out.replace("\n", "").isprintable()
        assert [] == [each for each in values if not shown.shows(each)]
    assert run("runs", "show", str(DONE)).says(printable_json(value))

    for args in (("runs", "list"), ("runs", "show", str(FAILED)), ("builds", "list"), ("doctor",)):
        shown = run(*args, "--json")
        assert shown.out.strip().isprintable()
        assert json.loads(shown.out)
    exported = run("runs", "export").out
    assert exported.replace("\n", "").isprintable()
    assert {name} == {json.loads(line)["workflow"] for line in exported.splitlines()}
    if ":" not in name and not name.endswith(".py") and not name.startswith("-"):
        done = run("run", name, "--key", "succeeded", "--wait")
        assert value == json.loads(done.out)
        assert done.out.strip().isprintable()
        failed = run("run", name, "--key", "failed", "--wait")
        assert printable(message, lines=True) in failed.err
        assert failed.err.replace("\n", "").isprintable()
