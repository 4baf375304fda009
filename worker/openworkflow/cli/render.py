"""Runs and steps for people, as tables, and for scripts, as JSON.

What is stored may be anything. Nothing that is printed here is markup: a text is shown as it is,
with escapes for what a terminal would obey; colors are `Text`s made by `styled`.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from datetime import MAXYEAR, datetime, timedelta
from typing import Any
from uuid import UUID

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from openworkflow.backend.builds import Build
from openworkflow.backend.pausing import Pause
from openworkflow.client import RunDetails
from openworkflow.core.envelope import described
from openworkflow.core.failure import Failure
from openworkflow.core.printable import printable, printable_json
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus, told_status
from openworkflow.core.workflow_run import WorkflowRun

ID_WIDTH = 36
PIPE_WIDTH = 400
SHOWN_RESULT = 60
MOST_TRACES = 3
"""Steps whose failure is told in full; a group may hold thousands."""
COLORS = {
    "pending": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "canceled": "magenta",
    "lost": "red",
    "unserved": "red",
    **dict.fromkeys(("queued", "build", "scheduled", "sleeping", "retrying", "waiting"), "yellow"),
}


def console() -> Console:
    """Standard output; colors only on a terminal, and no line cut where nobody sees its edge."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


class _Console(Console):
    """Every text comes through `render_str`, those of tables too."""

    def render_str(self, text: str, **options: Any) -> Text:
        options |= {"markup": False, "emoji": False}
        return super().render_str(printable(text, lines=True), **options)


class Listing(Table):
    """A table of which each row is one line, whatever somebody stored in a cell."""

    def __init__(self, *headings: str) -> None:
        super().__init__(*headings, box=None, pad_edge=False, header_style="bold")

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Ends of lines in texts are escaped."""
        lines = (printable(each) if isinstance(each, str) else each for each in cells)
        super().add_row(*lines, **options)


def say(text: str = "", *, err: bool = False) -> None:
    """Text on standard output, or standard error, with escapes for what a terminal would obey."""
    click.echo(printable(text, lines=True), err=err)


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(printable_json(value, _plain))


def styled(text: str, style: str) -> Text:
    """`text` in a color, or bold."""
    return Text(printable(text), style=style)


def status(value: str) -> Text:
    """A status in its color."""
    return styled(value, COLORS.get(value, "white"))


def runs_table(
    runs: Iterable[WorkflowRun],
    says: Mapping[UUID, Any] | None = None,
    states: Mapping[UUID, str] | None = None,
) -> Table:
    """A line for each run; with what they say of themselves, if one of them says anything.

    `states` say where those stand that have not ended.
    """
    table = Listing()
    table.add_column("ID", min_width=ID_WIDTH, no_wrap=True)
    for heading in ("WORKFLOW", "STATUS", "CREATED", "DURATION", "WORKER", *["SAYS"] * bool(says)):
        table.add_column(heading, overflow="fold")
    for run in runs:
        table.add_row(
            str(run.id),
            _versioned(run),
            status((states or {}).get(run.id, run.status)),
            when(run.created_at),
            duration(run.started_at, run.completed_at),
            run.worker_id or "",
            *([_short(_json(says.get(run.id)))] if says else []),
        )
    return table


def builds_table(builds: Iterable[Build]) -> Table:
    """A line for each build."""
    table = Listing()
    for heading in (
        "BUILD",
        "NEW RUNS",
        "RUNNING",
        "DUE",
        "WAITING",
        "NEXT DUE",
        "SEEN",
        "PROMOTED",
    ):
        table.add_column(heading, overflow="fold")
    builds = list(builds)
    routed = any(build.share for build in builds)
    for build in builds:
        table.add_row(
            build.build_id,
            "held" if build.held_at else f"{build.share} %" if routed else "any",
            str(build.running),
            str(build.due),
            str(build.waiting),
            when(build.next_due_at),
            when(build.created_at),
            when(build.promoted_at),
        )
    return table


def pauses_table(pauses: Iterable[Pause]) -> Table:
    """A line for each pause."""
    table = Listing()
    for heading in ("WORKFLOW", "RUNS", "SINCE", "BY", "REASON"):
        table.add_column(heading, overflow="fold")
    for each in pauses:
        name = each.workflow_name or "(all)"
        since = when(each.paused_at)
        table.add_row(name, str(each.runs), since, each.paused_by or "", each.reason or "")
    return table


def details(found: RunDetails) -> Iterable[Any]:
    """A run and the timeline of its steps."""
    run = found.run
    facts = Table(box=None, pad_edge=False, show_header=False)
    rows: list[tuple[str, str | Text]] = [
        ("id", str(run.id)),
        ("workflow", _versioned(run)),
        ("status", status(run.status)),
        ("created", when(run.created_at)),
        ("started", when(run.started_at)),
        ("due again" if run.status == "pending" else "finished", _end(run)),
        ("waits for", _waits(found)),
        ("says", _json(found.progress.status)),
        ("events", str(found.progress.events or "")),
        ("deadline", when(run.deadline_at)),
        ("paused", _pause(run)),
        ("priority", str(run.priority or "")),
        ("tags", _json(run.tags)),
        ("parent", "" if run.parent_run_id is None else str(run.parent_run_id)),
        ("forked from", "" if run.forked_from is None else str(run.forked_from)),
        ("worker", run.worker_id or ""),
        ("schedule", _schedule(run)),
        ("build", f"{run.build_id or ''}{' (pinned)' if run.pinned else ''}"),
        ("failed attempts", str(run.attempts or "")),
        ("crashes", str(run.crashes or "")),
        ("input", described(run.input) or printable_json(run.input)),
        ("output", _json(run.output)),
        ("error", _error_and_page(run.error)),
    ]
    for name, value in rows:
        if value:
            facts.add_row(styled(name, "bold"), value)
    yield facts
    if found.steps:
        yield ""
        yield _timeline(found)
    for trace in (_traceback(run.error), *_step_traces(found)):
        if trace:
            yield ""
            yield trace


def _schedule(run: WorkflowRun) -> str:
    return f"{run.schedule_name}, {when(run.scheduled_for)}" if run.schedule_name else ""


def _timeline(found: RunDetails) -> Table:
    table = Listing()
    for heading in ("STEP", "KIND", "ATTEMPT", "STATUS", "AFTER", "TOOK", "RESULT"):
        table.add_column(heading, no_wrap=heading != "RESULT")
    for each in found.steps:
        result = _error(each.error) or _json(each.output)
        table.add_row(
            each.step_name,
            each.kind,
            str(each.attempt),
            status(told_status(each.status, each.claim_no, each.context)),
            duration(found.run.created_at, each.created_at),
            duration(each.created_at, each.completed_at),
            _short(result),
        )
    return table


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_RESULT else text[: SHOWN_RESULT - 1] + "…"


def when(moment: datetime | None) -> str:
    """A time in the reader's zone, to the second."""
    if moment is not None and moment.year == MAXYEAR:
        return "never"
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time between, in the unit that suits it."""
    if start is None or end is None:
        return ""
    seconds = max(0.0, (end - start).total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def length(seconds: str) -> str:
    """A stored length of time, which anybody may have written, as one reads it."""
    try:
        return str(timedelta(seconds=float(seconds)))
    except (ValueError, OverflowError):
        return seconds


def _versioned(run: WorkflowRun) -> str:
    return run.workflow_name + (f" ({run.version})" if run.version else "")


def _pause(run: WorkflowRun) -> str:
    """Whether the run is held back; `runs explain` says by whom and why, also for its workflow."""
    if not run.paused or run.status.finished:
        return ""
    return "yes" if run.due_at is None else f"yes; it would be due {when(run.due_at)}"


def _end(run: WorkflowRun) -> str:
    """A run that waits for no time is due at the latest one that can be shown.

    One that waits for its limits has the time since when it does, and is due at its deadline.
    """
    limited = run.limits and not run.paused and run.status == "pending"
    if limited and run.due_at is not None and run.due_at < run.available_at:
        return "when it has a slot of its limits"
    if run.status == "pending" and run.available_at.year == MAXYEAR:
        return "when it is woken" if run.due_at is None or limited else "when it is resumed"
    return when(run.available_at if run.status == "pending" else run.completed_at)


def _json(value: Any) -> str:
    """What cannot be read is said in words, and not shown."""
    return "" if value is None else described(value) or printable_json(value)


def _waits(found: RunDetails) -> str:
    """The signals and children that the run waits for, since when, and the turns of its steps."""
    if found.run.status.finished:
        return ""
    waits = [
        f"{_awaited(each)} since {when(each.created_at)}"
        + (f", until {when(each.resume_at)}" if each.resume_at else "")
        for each in found.steps
        if each.kind in _AWAITED and each.status == StepStatus.RUNNING
    ]
    waits += [
        f"its turn to call {turn.step!r}, at the rate of limit {turn.limit_name!r}, {when(turn.at)}"
        for turn in found.turns
    ]
    return "\n".join(waits)


_AWAITED = {StepKind.SIGNAL: "signal", StepKind.CHILD: "child", StepKind.MAP: "children of"}


def _awaited(step: StepAttempt) -> str:
    told = f"{_AWAITED[step.kind]} {step.step_name!r}"
    if step.kind != StepKind.CHILD:
        return told
    context = step.context if isinstance(step.context, dict) else {}
    return f"{told}, run {context.get('child', step.id)},"


def _error(error: Any) -> str:
    if not isinstance(error, dict):
        return "" if error is None else str(error)
    return f"{str(error.get('type', '')).rpartition(':')[2]}: {error.get('message', '')}"


def _error_and_page(error: Any) -> str:
    """With where more is said, if it is an error of this package."""
    page = None if error is None else Failure.from_object(error).page
    return f"{_error(error)}\nsee {page}" if page else _error(error)


def _traceback(error: Any) -> str:
    """Where in the code it was, as Python tells it."""
    return Failure.from_object(error).traceback.rstrip() if isinstance(error, dict) else ""


def _step_traces(found: RunDetails) -> Iterable[str]:
    """Where in the functions of steps it was that failed the run: that shows only the call."""
    error = found.run.error
    names = error.get("steps") if isinstance(error, dict) else None
    for name in names[:MOST_TRACES] if isinstance(names, list) else ():
        failed = [
            each
            for each in found.steps
            if each.step_name == name and each.status == "failed" and each.claim_no >= 0
        ]
        if failed and (trace := _traceback(failed[-1].error)):
            yield f"step {name!r}, attempt {failed[-1].attempt}: {trace}"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)
