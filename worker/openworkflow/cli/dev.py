"""`openworkflow dev`: a database, the dashboard, and a worker, anew whenever the code changes."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from openworkflow.cli.dashboard import PORT
from openworkflow.cli.options import database, run_async
from openworkflow.cli.render import say
from openworkflow.cli.target import load_workflows
from openworkflow.cli.watching import Application
from openworkflow.core.errors import ConfigurationError
from openworkflow.embedded import EmbeddedPostgres
from openworkflow.settings import Settings

AGAIN_SECONDS = 1.0
"""Between a worker that was killed and the next: one that kills itself at once makes no storm."""
KILL_SECONDS = 35
"""A worker that has not drained by then is killed."""


@click.command()
@click.argument("target")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded database.")
@click.option("--no-reload", is_flag=True, help="Do not watch for changes.")
def dev(target: str, data: Path | None, no_reload: bool) -> None:
    """Serve TARGET for development, with a database of its own.

    An embedded PostgreSQL, the dashboard, and a worker: a new one whenever the code changes that it
    imports from this folder, or something kills it. The database is started again likewise.

    With DATABASE_URL set, that database is used instead; if it is that of the embedded one, which
    this command prints, the embedded one is started.
    """
    settings = Settings.from_env()
    workflows = load_workflows(target)
    with contextlib.ExitStack() as stack:
        embedded, url = EmbeddedPostgres(data), settings.database_url
        is_ours = url is None or embedded.is_at(url)
        if is_ours:
            click.echo(f"PostgreSQL in {embedded.data_dir}")
            started = stack.enter_context(embedded)
            url = url or started
        say(f"workflows: {', '.join(w.name for w in workflows)}")
        if is_ours:
            click.echo("in another terminal:")
            click.echo(f"  export DATABASE_URL='{url}'")
        else:  # not shown: it may hold a password
            click.echo("in another terminal, with the same DATABASE_URL:")
        input = " --input '{...}'" if workflows[0].takes_input else ""
        say(f"  openworkflow run {workflows[0].name}{input} --wait")
        click.echo("  openworkflow runs list\n")
        run_async(_serve(target, str(url), embedded if is_ours else None, watch=not no_reload))


async def _serve(target: str, url: str, embedded: EmbeddedPostgres | None, *, watch: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    changes = _changes(stop) if watch else None
    board = await _start_dashboard(url)
    keeper = None if embedded is None else asyncio.ensure_future(_keep_up(embedded))
    try:
        await _work(target, url, changes, stop)
    finally:
        if keeper is not None:
            keeper.cancel()
        if board is not None:
            await _drain(board)


async def _work(
    target: str, url: str, changes: "asyncio.Queue[None] | None", stop: asyncio.Event
) -> None:
    while not stop.is_set():
        child = await _start(target, url)
        await _until_change(child, changes, stop)
        killed = child.returncode is not None and child.returncode < 0
        await _drain(child)
        if stop.is_set():
            break
        if killed:
            click.echo(f"worker {child.pid} was killed: starting a new one")
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            click.echo("the code changed: starting a new worker")


async def _keep_up(embedded: EmbeddedPostgres) -> None:
    """Start the database again whenever something ends it: nobody else would."""
    said = ""
    while True:
        await asyncio.sleep(AGAIN_SECONDS)
        try:
            if await asyncio.to_thread(embedded.revive):
                click.echo("PostgreSQL had ended: started it again")
        except ConfigurationError as error:
            if said != (said := str(error)):
                say(said, err=True)


async def _start_dashboard(url: str) -> asyncio.subprocess.Process | None:
    """Start the dashboard, which prints its own address. None without its extra."""
    needed = ("jinja2", "multipart", "starlette", "uvicorn")
    if any(importlib.util.find_spec(name) is None for name in needed):
        click.echo("no dashboard: pip install 'openworkflow-fleet[dashboard]'")
        return None
    async with database(url, None, None, warn=False).connect():
        pass  # so that there are tables to look at
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "dashboard", "--port", str(_port())),
        env={**os.environ, "DATABASE_URL": url},
    )


def _port() -> int:
    """Port of the dashboard; any, where another program has it, such as a second `dev`."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", PORT)):
        return PORT
    return 0


async def _start(target: str, url: str) -> asyncio.subprocess.Process:
    environment = {
        "OPENWORKFLOW_PORT": "0",
        "OPENWORKFLOW_LOG_FORMAT": "human",
        **os.environ,
        "DATABASE_URL": url,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", target, "--tell-runs"), env=environment
    )
    click.echo(f"worker process {child.pid}")
    return child


async def _until_change(
    child: asyncio.subprocess.Process, changes: "asyncio.Queue[None] | None", stop: asyncio.Event
) -> None:
    """Until the code changes, something kills the worker, or we are told to stop.

    One that ends by itself, as code that cannot be imported does, waits for a change.
    """
    waits: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(stop.wait()),
        asyncio.ensure_future(child.wait()),
    ]
    if changes is not None:
        waits.append(asyncio.ensure_future(changes.get()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if child.returncode is not None and child.returncode >= 0 and not stop.is_set():
            if changes is None:
                stop.set()
            else:
                click.echo("the worker ended; waiting for the code to change", err=True)
                await asyncio.wait([waits[0], waits[2]], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _drain(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(KILL_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _changes(stop: asyncio.Event) -> "asyncio.Queue[None]":
    try:
        from watchfiles import Change, PythonFilter, awatch
    except ImportError:
        raise ConfigurationError(
            "to reload on change, install the dev extra: pip install 'openworkflow-fleet[dev]'; "
            "or use --no-reload"
        ) from None
    changed: asyncio.Queue[None] = asyncio.Queue()
    application, is_python = Application(Path.cwd()), PythonFilter()

    def counts(change: Change, path: str) -> bool:
        return is_python(change, path) and application.has(Path(path))

    async def watch() -> None:
        try:
            # The folder may have some that are not ours to read, such as the data of a database.
            async for _ in awatch(
                Path.cwd(),
                watch_filter=counts,
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                changed.put_nowait(None)
        except (OSError, RuntimeError) as error:  # RuntimeError is that of watchfiles
            say(
                f"changes of the code are not seen: {error}; end this by Ctrl-C and start it "
                "again once that is mended, or after each change",
                err=True,
            )

    _watchers.add(asyncio.ensure_future(watch()))
    return changed


_watchers: set["asyncio.Future[None]"] = set()
"""Held, or the loop would forget them."""
