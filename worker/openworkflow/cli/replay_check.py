"""`openworkflow replay-check`: would this code go on with the runs that others began?

Made for CI, before a deploy: it reads, bounded and sampled, and executes no step.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import click
from rich.table import Table

from openworkflow.cli import histories, render
from openworkflow.cli.codec import chosen_codecs, codec_option
from openworkflow.cli.counting import counted
from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.cli.target import load_workflows
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.registry import Registry
from openworkflow.core.serialization import MOST_PAYLOAD_LIMIT
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.replay import BLOCKED, RecordedRun, Replayer
from openworkflow.settings import Settings
from openworkflow.worker.histories import open_run

AT_ONCE = 50
SHOWN_IDS = 3
MISSING = "Missing"
UNREADABLE = "PayloadUnreadable"
_STATUSES = [*histories.UNFINISHED, RunStatus.SUCCEEDED, RunStatus.FAILED]
_ADVICE = {
    MISSING: "keep the code of this version until its runs have ended, or pin builds",
    BLOCKED: "put it into a step",
    UNREADABLE: "give the check the codec of the workers: --codec, or OPENWORKFLOW_CODEC",
    "NonDeterminism": (
        "guard the change with `step.patched`, deploy it as a new version of the workflow, or pin "
        "builds"
    ),
    "SerializationError": "let the annotation accept what is stored: add fields with defaults",
}
_OTHERWISE = "the code fails before it comes to anything new; see the message"


@dataclass(slots=True)
class Finding:
    """Runs that break for the same cause."""

    workflow: str
    version: str | None
    cause: str
    message: str
    advice: str
    runs: int = 0
    unfinished: int = 0
    """How many of them will be replayed after the deploy."""
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What a check found."""

    replayed: int = 0
    findings: dict[tuple[str, ...], Finding] = field(default_factory=dict)
    patches: dict[str, str] = field(default_factory=dict)
    """Whether a patch may be taken out, by workflow and patch."""

    def add(self, run: RecordedRun, cause: str, message: str) -> None:
        """Count a run that breaks."""
        claimed = run.run
        key = (claimed.workflow_name, claimed.version or "", cause, message)
        kind = cause.rpartition(":")[2]
        finding = self.findings.setdefault(
            key,
            Finding(
                *(claimed.workflow_name, claimed.version, kind, message),
                advice=_ADVICE.get(kind, _OTHERWISE),
            ),
        )
        finding.runs += 1
        finding.unfinished += not run.status.finished
        if len(finding.examples) < SHOWN_IDS:
            finding.examples.append(str(claimed.id))


@click.command("replay-check")
@click.argument("targets", metavar="MODULE...", nargs=-1, required=True)
@click.option(
    "--from-file",
    "files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Histories that `runs export` wrote, instead of a database.",
)
@click.option("--workflow", help="Only runs of this workflow.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([s.value for s in _STATUSES]),
    multiple=True,
    help="Only runs of this status; may be repeated. [default: all of these]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Newest runs of each status.",
)
@click.option(
    "--timeout", type=DurationText(), default="5s", show_default=True, help="For one run."
)
@click.option("--allow-empty", is_flag=True, help="No history at all is fine.")
@codec_option
@database_options
@json_option
def replay_check(
    targets: tuple[str, ...],
    files: tuple[Path, ...],
    workflow: str | None,
    statuses: tuple[str, ...],
    limit: int,
    timeout: timedelta,
    allow_empty: bool,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Find the recorded runs that changed code would break.

    Replays them against the workflows of each MODULE, without executing a step.

    Exit code 3 if a run would break, 1 if there is no history to replay.
    """
    registry = Registry(workflow for target in targets for workflow in load_workflows(target))
    chosen = [RunStatus(status) for status in statuses] or _STATUSES
    where = None if files else database(url, namespace, schema)
    place = namespace or Settings.from_env().namespace
    payloads = Payloads(chosen_codecs(), place, MOST_PAYLOAD_LIMIT)
    runs = _runs(where, files, workflow, chosen, limit)
    report = run_async(_check(registry, runs, timeout, payloads))
    if not report.replayed and not report.findings and not allow_empty:
        raise ConfigurationError(
            "no history was found, so nothing was checked; is this the right database, namespace "
            "and workflow? --allow-empty if it may be so"
        )
    _tell(report, as_json)
    if report.findings:
        raise SystemExit(3)


async def _runs(
    where: Database | None,
    files: Iterable[Path],
    workflow: str | None,
    statuses: list[RunStatus],
    limit: int,
) -> AsyncIterator[RecordedRun]:
    if where is None:
        for path in files:
            for run in histories.read(path):
                if run.status in statuses and workflow in (None, run.run.workflow_name):
                    yield run
        return
    async with where.connect(migrate=False) as backend:
        found = histories.recorded(backend, workflow=workflow, statuses=statuses, limit=limit)
        async for run in found:
            yield run


async def _check(
    registry: Registry, runs: AsyncIterator[RecordedRun], timeout: timedelta, payloads: Payloads
) -> Report:
    report, old_side, new_side = Report(), Counter[tuple[str, str]](), set[tuple[str, str]]()

    async def one(run: RecordedRun, replayer: Replayer) -> None:
        name, version = run.run.workflow_name, run.run.version
        workflow = registry.find(name, version)
        if workflow is None:
            if not run.status.finished:
                shown = f"{name!r} in version {version!r}" if version else repr(name)
                report.add(run, MISSING, f"the module has no workflow {shown}")
            return
        opened = await open_run(payloads, run.run, run.steps)
        if isinstance(opened, Exception):
            report.add(run, UNREADABLE, str(opened))
            return
        report.replayed += 1
        plain = dataclasses.replace(run, run=opened[0], steps=opened[1])
        replayed = await replayer.replay(plain, workflow)
        if replayed.found is not None:
            report.add(run, replayed.found.cause, replayed.found.message)
        for patch in replayed.asked:
            new_side.add((name, patch))
            old_side[name, patch] += not run.status.finished and patch not in run.patches

    with Replayer(timeout) as replayer:
        async for batch in _batches(runs):
            await asyncio.gather(*(one(run, replayer) for run in batch))
    for name, patch in sorted(new_side):
        left = old_side[name, patch]
        report.patches[f"{name}: {patch}"] = (
            f"still needed: {left} unfinished runs are on its old side, or have not come to it"
            if left
            else "no unfinished run of these needs its old side: it may be taken out"
        )
    return report


async def _batches(runs: AsyncIterator[RecordedRun]) -> AsyncIterator[list[RecordedRun]]:
    """The runs in lists of those that are replayed at once; no more of them are in memory."""
    batch: list[RecordedRun] = []
    async for run in runs:
        batch.append(run)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _tell(report: Report, as_json: bool) -> None:
    findings = sorted(report.findings.values(), key=lambda each: -each.unfinished)
    if as_json:
        found = [dataclasses.asdict(each) for each in findings]
        render.as_json({"replayed": report.replayed, "findings": found, "patches": report.patches})
        return
    render.say(
        f"{counted(report.replayed, 'run')} replayed, {sum(f.runs for f in findings)} would break"
    )
    for finding in findings:
        facts = Table(box=None, pad_edge=False, show_header=False)
        version = f" {finding.version}" if finding.version else ""
        facts.add_row("workflow", f"{finding.workflow}{version}")
        facts.add_row(
            "breaks",
            f"{counted(finding.runs, 'run')}, {finding.unfinished} of them unfinished",
        )
        facts.add_row("why", f"{finding.cause}: {finding.message}")
        facts.add_row("do", finding.advice)
        facts.add_row("such as", " ".join(finding.examples))
        render.say()
        render.console().print(facts)
    for patch, state in report.patches.items():
        render.say(f"\npatch {patch}: {state}")
