"""Rules of runs that schedules start, keys bring together, or somebody changes. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.chaos.evidence import (
    FORKED,
    NEWEST,
    OCCURRENCES,
    PAUSED,
    READ,
    REOPENED,
    Evidence,
    Violation,
)

MINUTE = timedelta(minutes=1)
"""The schedules of a campaign run every minute."""


def occurrences(evidence: Evidence) -> Iterator[Violation]:
    """Each instant of a schedule has one run; only the one that waits at the end is canceled."""
    of: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for each in evidence.occurrences:
        of[each.schedule].append((each.instant, each.status))
    for name, found in of.items():
        last, first_wanted = max(found)[0], {at for of_, at in evidence.wanted if of_ == name}
        times = Counter(instant for instant, _ in found)
        for instant, count in times.items():
            if count > 1:
                yield Violation(OCCURRENCES, name, f"{instant} has {count} runs")
        for instant, status in found:
            if status != "succeeded" and (instant, status) != (last, "canceled"):
                yield Violation(OCCURRENCES, name, f"{instant} is {status}")
        on_time = {each for each in times if each == each.replace(second=0, microsecond=0)}
        own = on_time - first_wanted
        instant = min(own, default=last)
        while instant < max(own, default=last):
            instant += MINUTE
            if instant not in on_time:
                yield Violation(OCCURRENCES, name, f"{instant} has no run")
    for name, instant in evidence.wanted:
        if instant not in {at for at, _ in of[name]}:
            yield Violation(OCCURRENCES, name, f"{instant} was asked for, and has no run")


def newest(evidence: Evidence) -> Iterator[Violation]:
    """The input of the last call for a key, or of a later one, is that of a run."""
    most: dict[str, int] = {}
    for run in evidence.runs:
        key, _, number = run.job.rpartition(".")
        if key in evidence.newest:
            most[key] = max(most.get(key, -1), int(number))
    for key, last in evidence.newest.items():
        if most.get(key, -1) < last:
            detail = f"call {last} was answered, and the newest input is {most.get(key)}"
            yield Violation(NEWEST, key, detail)


def read(evidence: Evidence) -> Iterator[Violation]:
    """Events are numbered from 0 without a gap, and who follows a run reads each once, in order."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for event in evidence.told:
        if event.number is not None:
            numbers[event.job].append(event.number)
    for job, there in numbers.items():
        if sorted(there) != list(range(len(there))):
            yield Violation(READ, job, f"its events are numbered {sorted(there)}")
    for job, got in evidence.followed.items():
        if list(got) != sorted(numbers[job]):
            yield Violation(READ, job, f"it told {sorted(numbers[job])}, of which was read {got}")


def paused(evidence: Evidence) -> Iterator[Violation]:
    """A run is claimed by nobody while it is paused."""
    for job, before, after in evidence.pauses:
        if before != after:
            yield Violation(PAUSED, job, f"{after - before} claims while it was paused")


def forked(evidence: Evidence) -> Iterator[Violation]:
    """A fork has the results that it keeps, calls no such step, and calls the others."""
    outputs = {run.job: run.output or {} for run in evidence.runs if run.status == "succeeded"}
    called: dict[str, set[str]] = defaultdict(set)
    for call in evidence.calls:
        called[call.job].add(call.key)
    for fork in evidence.forks:
        if again := called[fork.job] & fork.keeps:
            yield Violation(FORKED, fork.job, f"it called {sorted(again)}, which it was to keep")
        mine, theirs = outputs.get(fork.job, {}), outputs.get(fork.origin, {})
        for key in mine.keys() & theirs.keys():
            if (mine[key] == theirs[key]) != (key in fork.keeps):
                yield Violation(FORKED, fork.job, f"{key} is {mine[key]}, and was {theirs[key]}")


def reopened(evidence: Evidence) -> Iterator[Violation]:
    """What comes before the step stays, and the step is done anew: it is called `b+` then."""
    made = {call.token: call for call in evidence.calls if call.job in evidence.reopened}
    for run in evidence.runs:
        asked_at = evidence.reopened.get(run.job)
        if asked_at is None or run.status != "succeeded" or run.output is None:
            continue
        kept, anew = made.get(run.output["a"]), made.get(run.output["=b"])
        if kept is None or kept.at > asked_at:
            yield Violation(REOPENED, run.job, "its first step was not kept")
        if anew is None or anew.key != "b+":
            yield Violation(REOPENED, run.job, "its second step was not done anew")
