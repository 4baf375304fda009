"""Rules of runs that are made of others, are counted, or take back what they did. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from tests.chaos.evidence import (
    ENDED,
    KIN,
    RATES,
    UNDONE,
    WINDOW,
    Evidence,
    Group,
    Kin,
    Row,
    Violation,
)
from tests.chaos.ledger import Call

UNDO = "undo:"
"""How the calls are named that undo a step."""


def kin(evidence: Evidence) -> Iterator[Violation]:
    """A step starts one child, whose priority is no lower, and gives what that came to."""
    of: dict[str, list[Kin]] = defaultdict(list)
    for each in evidence.kin:
        of[each.parent].append(each)
    came_to = {run.job: run for run in evidence.runs}
    for parent, children in of.items():
        for step, count in Counter(each.step for each in children).items():
            if count > 1:
                yield Violation(KIN, parent, f"{step} has started {count} children")
        for each in children:
            if each.priority < each.least_priority:
                yield Violation(KIN, each.job, f"its priority is {each.priority}")
            run, above = came_to.get(each.job), came_to.get(parent)
            name = "=" + each.job.removeprefix(f"{parent}/")
            got = (above.output or {}).get(name) if above is not None else None
            if got is None or run is None:
                continue
            last = (run.output or {}).get("b") if run.status == "succeeded" else "failed"
            if got != last:
                yield Violation(KIN, parent, f"{name[1:]} came to {last}, and it got {got}")


def window(evidence: Evidence) -> Iterator[Violation]:
    """No more children of a map exist unfinished than it says."""
    maps: dict[tuple[str, str], list[Kin]] = defaultdict(list)
    for each in evidence.kin:
        if each.map and each.open is not None:
            maps[each.parent, each.map].append(each)
    for (parent, name), children in maps.items():
        changes = sorted(
            change
            for begun, ended in (each.open for each in children if each.open is not None)
            # What ended in the moment that another began was over before.
            for change in ((begun, 1), *([(ended, -1)] if ended is not None else []))
        )
        at_once = most = 0
        for _, change in changes:
            at_once += change
            most = max(most, at_once)
        if most > (allowed := evidence.windows.get(parent, len(children))):
            yield Violation(WINDOW, parent, f"{name} had {most} children open, not {allowed}")


def at_once(evidence: Evidence) -> Iterator[Violation]:
    """No more of a group are under way at once than may be.

    Only calls that were recorded count: the claim that recorded one stood all the while that the
    call took, so that no frozen process and no lost claim has to be allowed for.
    """
    recorded = {row.token for row in evidence.rows if row.status == "succeeded"}
    spans: dict[Group, list[tuple[float, float, str]]] = defaultdict(list)
    for call in evidence.calls:
        if call.token in recorded and call.token in evidence.ended:
            for group in evidence.groups.get(call.job, ()):
                who = call.token if group.rule == WINDOW else call.job
                spans[group].append((call.at, evidence.ended[call.token], who))
    for group, found in spans.items():
        found = _whole(found) if group.whole else sorted(found)
        yield from _crowds(group, found)


def _whole(spans: Iterable[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    whole: dict[str, tuple[float, float]] = {}
    for begun, ended, who in spans:
        first, last = whole.get(who, (begun, ended))
        whole[who] = min(first, begun), max(last, ended)
    return sorted((begun, ended, who) for who, (begun, ended) in whole.items())


def _crowds(group: Group, spans: Sequence[tuple[float, float, str]]) -> Iterator[Violation]:
    going: dict[str, float] = {}
    for begun, ended, who in spans:
        going = {each: end for each, end in going.items() if end > begun}
        going[who] = max(ended, going.get(who, ended))
        if len(going) > group.most:
            detail = f"of {group.name}, {sorted(going)} at once at {begun:.3f}"
            yield Violation(group.rule, who, detail)


def rates(evidence: Evidence) -> Iterator[Violation]:
    """Two runs of a rate's key do not begin closer to each other than it says."""
    for key, times in evidence.begun.items():
        for before, after in pairwise(sorted(times)):
            if (apart := (after - before).total_seconds()) < evidence.apart:
                detail = f"{apart:.3f} s between two at {after}, not {evidence.apart}"
                yield Violation(RATES, key, detail)


def undone(evidence: Evidence) -> Iterator[Violation]:
    """Of a run that ends well nothing is undone; of another all that was begun, and once."""
    rows: dict[str, list[Row]] = defaultdict(list)
    sagas: set[str] = set()
    for row in evidence.rows:
        rows[row.job].append(row)
        if row.can_be_undone:
            sagas.add(row.job)
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in evidence.calls:
        if call.job in sagas:
            calls[call.job].append(call)
    for run in evidence.runs:
        if run.job not in sagas or run.status not in ENDED:
            continue
        if run.status == "succeeded":
            for call in calls[run.job]:
                if call.key.startswith(UNDO):
                    yield Violation(UNDONE, run.job, f"it ended well, and {call.key} was called")
        else:
            yield from _all_undone(run.job, rows[run.job], calls[run.job])


def _all_undone(job: str, rows: Iterable[Row], calls: Iterable[Call]) -> Iterator[Violation]:
    steps = {row.key: row for row in rows if row.can_be_undone and row.status == "succeeded"}
    could = {row.key for row in rows if row.can_be_undone}
    owed = {call.key for call in calls if call.key in could and not call.raises} | steps.keys()
    performed = sorted(
        (row.completed_at, row.key.removeprefix(UNDO))
        for row in rows
        if row.kind == "undo" and row.key.startswith(UNDO) and row.status == "succeeded"
        if row.completed_at is not None
    )
    times = Counter(key for _, key in performed)
    # One that was begun, and cut short before its function was called, may be undone as well.
    for key in sorted(owed | times.keys()):
        if times[key] > 1 or times[key] < (key in owed) or key not in could:
            yield Violation(UNDONE, job, f"{key} was undone {times[key]} times")
    # What was cut short has no number: it had not ended, so it is the first to be undone.
    order = [steps[key].number if key in steps else None for _, key in performed]
    for before, after in pairwise(order):
        if after is None and before is not None:
            yield Violation(UNDONE, job, f"what was cut short was not undone first: {order}")
        elif before is not None and after is not None and after > before:
            yield Violation(UNDONE, job, f"the order of ends of what was undone is {order}")
