"""Writes docs/cli.md by running every command on a PostgreSQL of its own.

make docs
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from openworkflow.embedded import EmbeddedPostgres

OUT = Path(__file__).parents[1] / "docs" / "cli.md"
INTRO = """# The command line

Made by `make docs`, which runs every command shown; ids, times and folders differ each time.

The database is `DATABASE_URL`, or `--url`. Errors are one line on stderr, without a traceback.
Every command that answers takes `--json`; [scripts.md](scripts.md) has the objects.
Tables have times in the zone of this machine, `runs explain` in UTC, `schedules show` in its own.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error; the line says what to do |
| 2 | wrong usage |
| 3 | `doctor` found a problem, or the run that was waited for failed or was canceled |
| 4 | the run that was waited for has not ended in the time given; it goes on |
"""
ORDER = '{"id": 1, "email": "ann@example.com"}'


class Session:
    """A folder, a database, and what was run there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.text = folder, [INTRO]
        self._url = url
        programs = str(Path(sys.executable).parent)
        self.env = {
            **os.environ,
            "DATABASE_URL": url,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
        }

    def say(self, text: str) -> None:
        """Prose."""
        self.text.append(text)

    def show(self, *args: str) -> str:
        """Run `openworkflow` with these arguments, and show the command and its output."""
        done = subprocess.run(
            ["openworkflow", *args],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        output = self.clean(done.stdout)
        code = f"# exit code {done.returncode}\n" if done.returncode else ""
        command = shlex.join(["openworkflow", *args])
        self.text.append(f"```console\n$ {command}\n{output}{code}```\n")
        return done.stdout

    def wait(self, *args: str, until: str) -> None:
        """Run a command again until it says so; it is not shown."""
        said = ""
        for _ in range(60):
            done = subprocess.run(
                ["openworkflow", *args],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if until in (said := done.stdout):
                return
            time.sleep(0.5)
        raise TimeoutError(f"{shlex.join(args)} never said {until!r}, but {said!r}")

    def clean(self, output: str) -> str:
        """Without this machine's folders."""
        output = output.replace(self._url, "postgresql://…").replace(str(self.folder), "~/shop")
        output = re.sub(r"\S*/\.s\.PGSQL\.\d+/", "localhost:5432/", output)
        return "".join(line.rstrip() + "\n" for line in output.splitlines())

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """A worker for the length of a block."""
        worker = subprocess.Popen(
            ["openworkflow", "worker", "workflows", "--port", "0"],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            worker.terminate()
            worker.wait()


def write(session: Session) -> None:
    """Every command, in the order one meets them."""
    session.show("--help")
    session.say("## init\n\nWrites a first project.\n")
    session.show("init")
    # A machine that is busy shows a run for longer than the ten seconds that it sleeps.
    workflows = session.folder / "workflows.py"
    workflows.write_text(workflows.read_text("utf-8").replace('"10s"', '"1h"'), "utf-8")
    session.say(
        "## dev\n\nEmbedded PostgreSQL, a worker, and a new worker when the code changes.\n"
    )
    session.show("dev", "--help")
    session.say(
        "## migrate\n\nWorkers and clients migrate when they connect; this is for pipelines.\n"
        "`--wait 60s` gives a server that does not answer yet that time; `--roles` is in "
        "[security.md](security.md#roles).\n"
    )
    for args in ((), ("--status",), ("--dry-run",)):
        session.show("migrate", *args)
    session.say("## worker\n\nServes workflows until SIGTERM, then drains.\n")
    session.show("worker", "--help")
    session.say("## run\n\nStarts a run. With `module:workflow` the input is checked first.\n")
    run_id = session.show("run", "workflows:ship_order", "--input", ORDER).strip()
    session.show("run", "workflows:ship_order", "--input", '{"id": "one"}')
    session.show("run", "ship-order", "--wait", "--timeout", "1s")
    session.say(
        "## runs\n\n`show` has the timeline of a run: each attempt of a step with its beginning "
        "(`AFTER` the run was created) and how long it `TOOK`, and the tracebacks of what failed "
        "the run, in the workflow and in the step.\n"
        "`attempts` are failed attempts of the run as a whole, as "
        "`@workflow(retry=…)` counts them.\n"
    )
    with session.worker():
        session.wait("runs", "explain", run_id, until="sleeps")
        session.show("runs", "list")
        session.show("runs", "list", "--status", "pending", "--json")
        session.show("runs", "show", run_id)
        session.show("runs", "explain", run_id)
        session.show("runs", "cancel", run_id)
        session.show("runs", "retry", run_id)
        session.show("runs", "fork", run_id)
        session.show("runs", "fork", "--help")
        session.show("runs", "events", "--help")
    session.show("runs", "list", "--help")
    session.say(
        "Filters and what is done with them are in [control.md](control.md#tags-and-filters).\n"
    )
    session.show("runs", "list", "--where", "statsu:failed")
    session.show("runs", "retry", "--where", "status:failed,canceled", "--dry-run")
    session.show("runs", "retry", "--help")
    session.say("## pause\n\nHolds back a workflow, or everything, until `resume`.\n")
    session.show("pause", "ship-order", "--reason", "the carrier is down", "--by", "ann")
    session.show("pauses")
    session.show("resume", "ship-order")
    session.say(
        "## signal\n\nTells a run, or all that wait for a topic, that something has happened; see "
        "[signals.md](signals.md).\nIt prints the id of the message.\n"
    )
    session.show("signal", "approval:42", "--value", '{"by": "ann"}', "--key", "decision-42")
    session.show("signal", "--help")
    session.say(
        "## builds\n\nWhich build of your code takes new runs, and what is left on the others.\n"
    )
    session.show("builds", "list")
    session.env["OPENWORKFLOW_BUILD_ID"] = "3f2c1aa"
    with session.worker():
        session.wait("builds", "list", until="3f2c1aa")
        session.show("builds", "promote", "3f2c1ab")
        session.show("builds", "promote", "3f2c1aa")
        session.show("builds", "list")
        session.show("builds", "retire", "3f2c1aa")
    session.show("builds", "retire", "--help")
    session.say(
        "## schedules\n\nWhat runs again and again; [schedules.md](schedules.md) has the rest.\n"
    )
    session.show("schedules", "--help")
    session.show("schedules", "list")
    session.show("schedules", "backfill", "--help")
    session.say(
        "## replay-check\n\n"
        "Would this code go on with the runs that others began? "
        "[deploys.md](deploys.md) has the rest.\n"
    )
    session.show("replay-check", "workflows")
    session.show("replay-check", "--help")
    session.show("runs", "export", "--help")
    session.say(
        "## prune\n\nRetention: deletes finished runs with their steps, in small batches.\n"
        "It says first what it will delete, and asks on a terminal, unless `--yes` is given.\n"
    )
    session.show("prune", "--older-than", "30d", "--dry-run")
    session.show("prune", "--older-than", "0s", "--status", "failed", "--status", "succeeded")
    session.say("## doctor\n\nIs everything as it should be? Changes nothing.\n")
    session.show("doctor")


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="openworkflow-docs-") as folder:
        project = Path(folder) / "shop"
        project.mkdir()
        with EmbeddedPostgres(Path(folder) / "postgres") as url:
            session = Session(project, url)
            write(session)
    OUT.write_text("\n".join(session.text), "utf-8")


if __name__ == "__main__":
    main()
