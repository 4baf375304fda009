"""Whether a campaign went as promised: decided from its ledger and the tables alone. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise

from tests.chaos import composed_rules, control_rules
from tests.chaos.evidence import (
    BUILDS,
    CALLED,
    CONNECTIONS,
    COUNTS,
    ENDED,
    ENDS,
    FENCE,
    INVARIANTS,
    REPEATS,
    RESTS,
    RESULTS,
    ROWS,
    SIGNALS,
    TOGETHER,
    TOLD,
    WORKERS,
    Evidence,
    Fault,
    Run,
    Verdict,
    Violation,
)
from tests.chaos.ledger import Call

SLACK_SECONDS = 0.5
"""How late a process of a busy machine may hear what it was told."""
RESUMED_SECONDS = 0.5
"""What a process was about to do when SIGSTOP froze it, it does first after SIGCONT."""


def check(evidence: Evidence) -> Verdict:
    """Hold the evidence against every rule."""
    repeated = list(_repeated_calls(evidence))
    moving = [call for call in repeated if not _was_frozen(call, evidence.faults)]
    again = list(_unexplained(evidence))
    standing = [pair for pair in again if not _lost_its_lease(*pair, evidence)]
    violations = [Violation(CALLED, call.job, _told(call)) for call in moving]
    for before, after in standing:
        detail = f"{after.at - before.at:.2f} s after {before.token}: {_told(after)}"
        violations.append(Violation(REPEATS, after.job, detail))
    for rule in (
        _ends,
        _results,
        _rests,
        _rows,
        _fence,
        _counts,
        _system,
        _together,
        _builds,
        _told_by_runs,
        _signals,
        composed_rules.kin,
        composed_rules.window,
        composed_rules.at_once,
        composed_rules.rates,
        composed_rules.undone,
        control_rules.occurrences,
        control_rules.newest,
        control_rules.read,
        control_rules.paused,
        control_rules.forked,
        control_rules.reopened,
    ):
        violations += rule(evidence)
    excused = len(repeated) - len(moving)
    return Verdict(tuple(violations), excused, len(again) - len(standing))


def _proofs(calls: Iterable[Call]) -> dict[tuple[str, int, str], float]:
    """Since when, at the latest, each step is recorded: a call had seen its result."""
    since: dict[tuple[str, int, str], float] = {}
    for call in calls:
        for key in call.seen:
            since.setdefault((call.job, call.generation, key), call.at)
    return since


def _repeated_calls(evidence: Evidence) -> Iterator[Call]:
    recorded = _proofs(evidence.calls)
    newest: dict[str, int] = {}
    for call in evidence.calls:
        begun = newest[call.job] = max(newest.get(call.job, 0), call.generation)
        since = recorded.get((call.job, call.generation, call.key))
        if call.generation < begun or (since is not None and call.at > since):
            yield call


def _ends(evidence: Evidence) -> Iterator[Violation]:
    """Each accepted run ends exactly once, as it was meant to."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in evidence.runs:
        found[run.job].append(run)
        if run.status not in ENDED:
            yield Violation(ENDS, run.job, f"it is {run.status}, after {run.claim_no} claims")
    for name in found.keys() - {job.name for job in evidence.jobs}:
        if (count := len(found[name])) > 1:
            yield Violation(
                ENDS, name, f"it was asked for once, not answered, and is there {count} times"
            )
    for job in evidence.jobs:
        runs = found[job.name]
        if len(runs) != 1 and not (job.may_lack and not runs):
            yield Violation(ENDS, job.name, f"there are {len(runs)} runs of it")
        for run in runs:
            if run.status in ENDED and run.status not in job.ends:
                yield Violation(ENDS, job.name, f"{run.status}: {run.error}")
            elif run.status == "failed" and job.error is not None and run.error != job.error:
                yield Violation(ENDS, job.name, f"failed with {run.error}, not {job.error}")


def _results(evidence: Evidence) -> Iterator[Violation]:
    """What was recorded never changes: each reader saw the same, and the tables have it."""
    first: dict[tuple[str, int, str], str] = {}

    def differs(job: str, generation: int, results: Mapping[str, str]) -> Iterator[Violation]:
        for key, token in results.items():
            before = first.setdefault((job, generation, key), token)
            if before != token:
                yield Violation(RESULTS, job, f"{key}: {before} became {token}")

    for call in evidence.calls:
        yield from differs(call.job, call.generation, call.seen)
    for run in evidence.runs:
        yield from differs(run.job, run.generation, run.output or {})
    for change in evidence.changes:
        yield Violation(RESULTS, "", change)


def _rests(evidence: Evidence) -> Iterator[Violation]:
    """A canceled run does nothing more, once its worker had a lease's time to hear of it."""
    canceled = {job.name: job.canceled_at for job in evidence.jobs if job.canceled_at is not None}
    for call in evidence.calls:
        at = canceled.get(call.job)
        if at is None or call.at <= at + evidence.lease + SLACK_SECONDS:
            continue
        if call.key.startswith(composed_rules.UNDO):  # what it did is taken back
            continue
        if not _was_frozen(call, evidence.faults):
            detail = f"{call.at - at:.2f} s later: {_told(call)}"
            yield Violation(RESTS, call.job, detail)


def _unexplained(evidence: Evidence) -> Iterator[tuple[Call, Call]]:
    """A step is called twice only if a fault came between its first call and its record."""
    calls: dict[tuple[str, int, str], list[Call]] = defaultdict(list)
    for call in evidence.calls:
        calls[call.job, call.generation, call.key].append(call)
    for each in calls.values():
        for before, after in pairwise(each):
            since = before.at - evidence.lease
            faults = (f for f in evidence.faults if f.begin <= after.at and f.end >= since)
            if not before.raises and not any(faults):
                yield before, after


def _rows(evidence: Evidence) -> Iterator[Violation]:
    """What a run was given is in its rows, and what is in them was called; none is running."""
    called = {call.token for call in evidence.calls}
    recorded: dict[str, set[str | None]] = defaultdict(set)
    ended = {run.job for run in evidence.runs if run.status in ENDED}
    for row in evidence.rows:
        if row.status == "succeeded" and row.kind == "run":
            recorded[row.job].add(row.token)
            if row.token not in called:
                yield Violation(ROWS, row.job, f"nobody called {row.key}, recorded as {row.token}")
        if row.status == "running" and row.job in ended:
            yield Violation(ROWS, row.job, f"step {row.key} of an ended run is running")
    for run in evidence.runs:
        for key, token in (run.output or {}).items():
            if not key.startswith("=") and token not in recorded[run.job]:
                yield Violation(ROWS, run.job, f"{key} came to {token}, which is not recorded")


def _fence(evidence: Evidence) -> Iterator[Violation]:
    """A claim records nothing after a newer one has begun a step.

    A row has the claim that ended it, or gave it another number, and the time at which maybe an
    older one began it.
    """
    newer: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for row in evidence.rows:
        if row.kind == "run":
            begun_in = row.claim_no if row.begun_in is None else row.begun_in
            newer[row.job].append((row.created_at, begun_in))
    margin = timedelta(seconds=0.05)
    for row in evidence.rows:
        if row.status != "succeeded" or row.completed_at is None:
            continue
        for began, claim_no in newer[row.job]:
            if claim_no > row.claim_no and row.completed_at > began + margin:
                late = (row.completed_at - began).total_seconds()
                detail = f"claim {row.claim_no} recorded {row.key} {late:.2f} s into {claim_no}"
                yield Violation(FENCE, row.job, detail)
                break


def _counts(evidence: Evidence) -> Iterator[Violation]:
    """Attempts and crashes are no more than what was done explains."""
    for run in evidence.runs:
        if run.attempts:
            detail = f"{run.attempts} attempts of a run that has none to spend"
            yield Violation(COUNTS, run.job, detail)
        if run.crashes > len(evidence.faults):
            detail = f"{run.crashes} crashes, after {len(evidence.faults)} faults"
            yield Violation(COUNTS, run.job, detail)


def _system(evidence: Evidence) -> Iterator[Violation]:
    """Workers live, connections come back, the database's own check finds nothing."""
    for exit_ in evidence.exits:
        if exit_.code not in exit_.expected:
            detail = f"process {exit_.pid} ended with {exit_.code}"
            yield Violation(WORKERS, "", detail)
    if evidence.connections:
        detail = f"{evidence.connections} are left"
        yield Violation(CONNECTIONS, "", detail)
    for broken in evidence.broken:
        yield Violation(INVARIANTS, "", broken)


def _together(evidence: Evidence) -> Iterator[Violation]:
    """Runs and what their callers stored with them are there together, or not at all."""
    runs = {run.job for run in evidence.runs if run.job.startswith("order-")}
    for name in runs ^ evidence.orders:
        lacks = "its order" if name in runs else "its run"
        yield Violation(TOGETHER, name, f"{lacks} is not there")


def _builds(evidence: Evidence) -> Iterator[Violation]:
    """Nobody but workers of its build executes a pinned run."""
    pinned = {run.job: run.build for run in evidence.runs if run.build is not None}
    for call in evidence.calls:
        build = pinned.get(call.job)
        if build is not None and evidence.build_of.get(call.pid) != build:
            yield Violation(BUILDS, call.job, f"is of build {build}: {_told(call)}")


def _told_by_runs(evidence: Evidence) -> Iterator[Violation]:
    """What a workflow emits it emits once, in its order; what a step emits is there before it."""
    events: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for each in evidence.told:
        events[each.job, each.topic].append((each.key, each.token))
    for run in evidence.runs:
        seen, work = events[run.job, "seen"], events[run.job, "work"]
        given = list((run.output or {}).items())
        if run.status != "succeeded" or not (seen or work):
            continue
        if seen != given:
            yield Violation(TOLD, run.job, f"it was given {given}, and told {seen}")
        if lost := set(given) - set(work):
            yield Violation(TOLD, run.job, f"its steps did not tell {sorted(lost)}")
        if evidence.statuses.get(run.job) != given[-1][1]:
            yield Violation(TOLD, run.job, f"its status is {evidence.statuses.get(run.job)}")


def _signals(evidence: Evidence) -> Iterator[Violation]:
    """Those that the campaign sends are numbered."""
    for run in evidence.runs:
        got = (run.output or {}).get("=got")
        if got is not None and got.split() != [str(number) for number in range(len(got.split()))]:
            yield Violation(SIGNALS, run.job, f"it took {got}")


def _was_frozen(call: Call, faults: Iterable[Fault]) -> bool:
    """Whether its process had been frozen just before: it may have begun the call by then."""
    return any(
        fault.kind == "sigstop"
        and call.pid in fault.pids
        and 0 <= call.at - fault.end <= RESUMED_SECONDS
        for fault in faults
    )


def _lost_its_lease(before: Call, after: Call, evidence: Evidence) -> bool:
    """Whether a busy machine kept the heartbeats of the process from the database for a lease.

    So that one ran out between these calls of others: no beat can have reached the database in
    the lease before that.
    """
    beats = evidence.beats.get(before.pid, ())
    if before.pid == after.pid or not beats:
        return False
    answers = [*(beat.answered for beat in beats[1:]), math.inf]
    return any(
        beat.sent + evidence.lease <= min(after.at, answered) and answered >= before.at
        for beat, answered in zip(beats, answers, strict=True)
    )


def _told(call: Call) -> str:
    return f"{call.key} of generation {call.generation} by {call.pid} as {call.token}"
