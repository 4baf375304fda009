"""Schedules for people, as tables."""

from collections.abc import Iterable

from rich.table import Table

from openworkflow.cli.render import Listing, length, styled, when
from openworkflow.core.envelope import described_start
from openworkflow.core.schedule import Schedule


def schedules_table(found: Iterable[Schedule]) -> Table:
    """A line for each schedule."""
    table = Listing()
    for heading in ("SCHEDULE", "WORKFLOW", "WHEN", "NEXT", "LAST", "BEGUN", "SKIPPED", "MISSED"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(
            each.name,
            each.workflow_name + (f" ({each.version})" if each.version else ""),
            each.words,
            _next(each),
            when(each.last_at),
            *(str(count) for count in (each.begun, each.skipped, each.missed)),
        )
    return table


def schedule_details(found: Schedule, count: int) -> Table:
    """A schedule, and when it runs the next times, in its own zone."""
    facts = Table(box=None, pad_edge=False, show_header=False)
    reason = f": {found.pause_reason}" if found.pause_reason else ""
    rows = [
        ("schedule", found.name),
        ("workflow", found.workflow_name + (f" ({found.version})" if found.version else "")),
        ("when", found.words),
        ("cron", found.cron),
        ("declared by", found.source),
        ("overlap", found.overlap),
        (
            "catch up",
            found.catch_up if found.catch_up in ("none", "all") else length(found.catch_up),
        ),
        ("jitter", f"{found.jitter_seconds:g} s" if found.jitter_seconds else ""),
        ("input", described_start(found.input or "") or found.input or ""),
        ("paused", f"since {when(found.paused_at)}{reason}" if found.paused_at else ""),
        ("not declared", f"since {when(found.retired_at)}" if found.retired_at else ""),
        ("next", "" if found.stopped else "\n".join(found.upcoming(count))),
        ("last", f"{when(found.last_at)}  run {found.last_run_id}" if found.last_at else ""),
        ("waiting", str(len(found.queued_run_ids)) if found.queued_run_ids else ""),
        ("begun, skipped, missed", f"{found.begun}, {found.skipped}, {found.missed}"),
    ]
    for name, value in rows:
        if value:
            facts.add_row(styled(name, "bold"), value)
    return facts


def _next(schedule: Schedule) -> str:
    if schedule.paused_at is not None:
        return "paused"
    return "not declared" if schedule.retired_at is not None else when(schedule.next_at)
