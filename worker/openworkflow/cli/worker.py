"""`openworkflow worker`: serve workflows until told to stop."""

import logging
import os
import sys
from collections.abc import Sequence

import click
from prometheus_client import ProcessCollector

from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli.codec import client_of, codec_arguments, codec_option
from openworkflow.cli.options import Database, database, database_options, run_async
from openworkflow.cli.processes import LOOPBACK, MOST_PROCESSES, Processes, command, shares, tell
from openworkflow.cli.target import load_workflows
from openworkflow.core.errors import ConfigurationError
from openworkflow.settings import Settings
from openworkflow.telemetry import logs, sdk
from openworkflow.worker.http import DEFAULT_PORT, HealthServer
from openworkflow.worker.reports import RUNS_LOGGER
from openworkflow.worker.worker import Worker

logger = logging.getLogger(__name__)


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@codec_option
@database_options
@click.option("--concurrency", "-c", type=click.IntRange(1, 10_000), help="Runs at once.")
@click.option("--processes", type=click.IntRange(1, MOST_PROCESSES), help="They share the slots.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Metrics and health; 0: any free one.")
@click.option("--tell-runs", is_flag=True, help="Log the beginning and the end of each run.")
@click.option("--otel", is_flag=True, help="Send traces, as OTEL_... variables say.")
@click.option("--log-format", type=click.Choice(["auto", "json", "human"]))
@click.option("--report-to", type=int, hidden=True)  # as one of several processes
def worker(
    targets: tuple[str, ...],
    url: str | None,
    namespace: str | None,
    schema: str | None,
    concurrency: int | None,
    processes: int | None,
    port: int | None,
    tell_runs: bool,
    otel: bool,
    log_format: str | None,
    report_to: int | None,
) -> None:
    """Serve the workflows of each TARGET, until told to stop.

    A module, module:workflow, or a file.

    SIGTERM or Ctrl-C drains: nothing new is claimed, running steps end within
    OPENWORKFLOW_DRAIN_SECONDS, the rest is handed back. A second one cuts the drain short.
    Without options the environment decides: DATABASE_URL, OPENWORKFLOW_NAMESPACE, and so on.
    """
    settings = Settings.from_env()
    logs.configure(log_format or settings.log_format, settings.log_level)  # type: ignore[arg-type]
    if tell_runs:
        RUNS_LOGGER.setLevel(logging.DEBUG)
    where = database(url, namespace, schema)
    count = (processes or settings.processes) if report_to is None else 1
    slots = concurrency or settings.concurrency
    if count > 1:
        more = [*["--tell-runs"] * tell_runs, *["--otel"] * otel, *codec_arguments()]
        more += [] if log_format is None else ["--log-format", log_format]
        sys.exit(run_async(_share(targets, where, settings, slots, count, port, more)))
    provider = sdk.set_up() if otel or settings.otel == "on" else None
    try:
        run_async(serve(targets, where, settings, slots, port, report_to))
    finally:
        if provider is not None:
            sdk.shut_down(provider)


async def serve(
    targets: Sequence[str],
    where: Database,
    settings: Settings,
    concurrency: int,
    port: int | None = None,
    report_to: int | None = None,
) -> None:
    """Work until a signal comes; one of several processes says over `report_to` at which port."""
    # Each once: modules import the workflows of others.
    workflows = list(dict.fromkeys(w for target in targets for w in load_workflows(target)))
    async with where.connect(application_name="openworkflow-worker") as backend:
        made = client_of(backend).new_worker(
            workflows=workflows,
            concurrency=concurrency,
            **settings.worker_options(),
        )
        _describe(made, backend, settings)
        # Of the process, which here is the worker's own: CPU, memory, open files.
        ProcessCollector(registry=made.metrics.registry)
        wanted = settings.port if port is None else port
        http = HealthServer(
            DEFAULT_PORT if wanted is None else wanted,
            made.metrics.registry,
            live=made.live,
            ready=made.ready,
            elsewhere=wanted is None,
            host="" if report_to is None else LOOPBACK,
        )
        if report_to is None:
            logger.info("metrics and health on port %d", http.start())
        else:
            tell(report_to, http.start())
        try:
            await made.run_until_signal()
        finally:
            http.stop()


async def _share(
    targets: Sequence[str],
    where: Database,
    settings: Settings,
    slots: int,
    count: int,
    port: int | None,
    more: Sequence[str],
) -> int:
    """Work as several processes until a signal comes; the exit code."""
    if slots < count:
        raise ConfigurationError(
            f"{count} processes cannot share {slots} slots; each has to have one: raise "
            "--concurrency (OPENWORKFLOW_CONCURRENCY), or ask for fewer --processes"
        )
    place = ["--namespace", where.namespace, "--schema", where.schema]
    commands = [
        command(*targets, *place, "--concurrency", str(share), "--port", "0", *more)
        for share in shares(slots, count)
    ]
    # Not as an option: a command line is for everybody to see.
    environ = {**os.environ, "DATABASE_URL": where.url}
    wanted = settings.port if port is None else port
    return await Processes(commands, environ, settings.drain_seconds).run(wanted)


def _describe(made: Worker, backend: BackendPostgres, settings: Settings) -> None:
    from openworkflow import __version__

    made.metrics.build_info(__version__, settings.build_id)
    logger.info("worker %s serves namespace %s", made.worker_id, backend.namespace_id)
    if settings.build_policy == "pinned" and not settings.build_id:
        logger.warning(
            "OPENWORKFLOW_BUILD_POLICY is pinned, and no run is: there is no build to bind it to; "
            "set OPENWORKFLOW_BUILD_ID, such as to the commit of the code"
        )
