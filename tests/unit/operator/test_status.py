"""What a user is told: conditions, their reasons, and when a status is worth writing."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow_operator.api.spec import (
    Database,
    Key,
    Scaling,
    ScalingMode,
    Worker,
    WorkflowNamespace,
)
from openworkflow_operator.decide.faults import NOT_APPLIED, Fault
from openworkflow_operator.decide.observation import (
    DatabaseProblem,
    DatabaseReason,
    Observation,
    Pruning,
)
from openworkflow_operator.decide.pods import Pod, Trouble
from openworkflow_operator.decide.rollout import BuildView, Phase
from openworkflow_operator.decide.scaling import Demand, Limit
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.status import (
    conditions_of,
    news,
    status_of,
    worth_writing,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RESOURCE = WorkflowNamespace(
    key=Key("shop", "orders"),
    uid="uid-1",
    generation=3,
    created_at="",
    namespace_id="orders",
    database=Database("db"),
    worker=Worker("image"),
)
REACHED = Observation(Demand(due=4, oldest_due_age=1, running=2), NOW, serial=1)
GONE = DatabaseProblem(DatabaseReason.UNREACHABLE, "nothing answers")
DEPLOYMENT = {"spec": {"replicas": 1}, "status": {"replicas": 1, "readyReplicas": 1}}
FINE = Facts(RESOURCE, REACHED, DEPLOYMENT, (Pod("a", ready=True),), desired=1)


KEEPS: dict[str, Any] = {"retention_seconds": {"succeeded": 60}}


def pruned(how: Pruning) -> Facts:
    return dataclasses.replace(of(**KEEPS), pruning=how)


def ramping(left: int, ended: int, wakes: float = 3600, phase: Phase = Phase.RAMPING) -> Any:
    """The status of a fleet whose new build has so many runs."""
    views = {"b": BuildView(share=10, due=left, next_wake_seconds=wakes)}
    seen = dataclasses.replace(REACHED, builds=views)
    phases = {"b": (phase, f"10 % of the new runs: {ended} of the first 50 ended")}
    return status_of(dataclasses.replace(FINE, database=seen, phases=phases), NOW)


def test_the_numbers_of_builds_alone_are_not_worth_a_write_at_every_look() -> None:
    last = ramping(3, 7)

    assert not worth_writing(ramping(4, 8, 7200), last, 29)
    assert worth_writing(ramping(4, 8, 7200), last, 31)
    assert worth_writing(ramping(3, 7, phase=Phase.HELD), last, 0)


def test_a_wake_up_does_not_move_between_two_looks() -> None:
    """However long after the look the status is made."""
    seen = dataclasses.replace(REACHED, builds={"b": BuildView(share=0, next_wake_seconds=55)})
    facts = dataclasses.replace(FINE, database=seen, phases={"b": (Phase.DRAINING, "")})
    early, late = (status_of(facts, NOW + timedelta(seconds=s)) for s in (1, 9))

    assert early["builds"] == late["builds"]


def broken(trouble: Trouble) -> Facts:
    return dataclasses.replace(FINE, pods=(Pod("a", trouble=trouble),))


def denied(message: str) -> Facts:
    failure = {"type": "ReplicaFailure", "status": "True", "message": message}
    deployment = {"spec": {}, "status": {"conditions": [failure]}}
    return dataclasses.replace(FINE, deployment=deployment, pods=())


TAKEN = Fault("Service", "orders-worker", Trouble.NAME_TAKEN)
NO_ACCOUNT = Fault("ServiceAccount", "orders-worker", Trouble.NAME_TAKEN)
DENIED = Fault("NetworkPolicy", "orders-worker", Trouble.ADMISSION_DENIED)
LATE = Fault("Deployment", "orders-worker", NOT_APPLIED)


def failing(*faults: Fault) -> Facts:
    return dataclasses.replace(FINE, faults=faults)


def of(**changes: Any) -> Facts:
    return dataclasses.replace(FINE, resource=dataclasses.replace(RESOURCE, **changes))


@pytest.mark.parametrize(
    ("facts", "condition", "status", "reason"),
    [
        (FINE, "Ready", "True", "Ready"),
        (FINE, "DatabaseReachable", "True", "Reachable"),
        (FINE, "ScalingActive", "True", "Following"),
        (FINE, "ScalingLimited", "False", "WithinLimits"),
        (FINE, "Paused", "False", "NotPaused"),
        (dataclasses.replace(FINE, database=None), "Ready", "Unknown", "NotObserved"),
        (dataclasses.replace(FINE, database=GONE), "Ready", "False", "Unreachable"),
        (
            dataclasses.replace(FINE, database=GONE),
            "ScalingActive",
            "False",
            "DatabaseUnreachable",
        ),
        (dataclasses.replace(FINE, desired=0, pods=()), "WorkersAvailable", "True", "ScaledToZero"),
        (dataclasses.replace(FINE, pods=()), "WorkersAvailable", "False", "WorkersStarting"),
        (broken(Trouble.IMAGE_PULL_FAILED), "Ready", "False", "ImagePullFailed"),
        (broken(Trouble.CRASH_LOOPING), "WorkersAvailable", "False", "CrashLooping"),
        (broken(Trouble.UNSCHEDULABLE), "WorkersAvailable", "False", "Unschedulable"),
        (denied("exceeded quota: pods=1"), "Ready", "False", "QuotaExceeded"),
        (denied("violates PodSecurity"), "WorkersAvailable", "False", "AdmissionDenied"),
        (FINE, "ObjectsApplied", "True", "Applied"),
        (failing(TAKEN), "ObjectsApplied", "False", "NameTaken"),
        (failing(TAKEN), "WorkersAvailable", "True", "WorkersReady"),
        (failing(TAKEN), "Ready", "False", "NameTaken"),
        (failing(NO_ACCOUNT), "WorkersAvailable", "False", "NameTaken"),
        (failing(LATE), "ObjectsApplied", "False", "NotApplied"),
        (failing(LATE), "Ready", "True", "Ready"),
        (failing(LATE, DENIED, TAKEN), "ObjectsApplied", "False", "NameTaken"),
        (failing(LATE, DENIED), "ObjectsApplied", "False", "AdmissionDenied"),
        (of(paused=True), "ObjectsApplied", "Unknown", "Paused"),
        (
            dataclasses.replace(FINE, limit=Limit.MAX_REPLICAS),
            "ScalingLimited",
            "True",
            "MaxReplicas",
        ),
        (FINE, "RetentionActive", "False", "KeptForever"),
        (of(**KEEPS), "RetentionActive", "Unknown", "NotPruned"),
        (of(**KEEPS, paused=True), "RetentionActive", "False", "Paused"),
        (pruned(Pruning()), "RetentionActive", "True", "Pruning"),
        (pruned(Pruning(GONE)), "RetentionActive", "False", "Unreachable"),
        (pruned(Pruning(GONE)), "Ready", "True", "Ready"),
        (of(paused=True), "Paused", "True", "Paused"),
        (of(paused=True), "ScalingActive", "False", "Paused"),
        (of(replicas=3), "ScalingActive", "False", "Pinned"),
        (of(scaling=Scaling(mode=ScalingMode.EXTERNAL)), "ScalingActive", "False", "External"),
        (
            dataclasses.replace(FINE, conflict=Key("shop", "older")),
            "Ready",
            "False",
            "Conflict",
        ),
    ],
)
def test_the_conditions_tell_the_truth(
    facts: Facts, condition: str, status: str, reason: str
) -> None:
    found = {c.type: (c.status, c.reason) for c in conditions_of(facts)}

    assert (status, reason) == found[condition]
    assert 10 == len(found)


def test_transition_times_move_only_with_the_status() -> None:
    first = status_of(FINE, NOW)
    known = dataclasses.replace(FINE, resource=dataclasses.replace(RESOURCE, status=first))
    later = NOW + timedelta(hours=1)

    same = status_of(known, later)
    changed = status_of(dataclasses.replace(known, database=GONE), later)

    assert {"2030-01-01T00:00:00Z"} == _times(same).keys()
    expected = {"DatabaseReachable", "Ready", "ScalingActive"}
    assert expected == _times(changed)["2030-01-01T01:00:00Z"]
    assert 3 == same["conditions"][0]["observedGeneration"]


def test_numbers_stand_while_the_database_cannot_be_read() -> None:
    first = status_of(FINE, NOW)
    facts = of(status=first)

    status = status_of(dataclasses.replace(facts, database=GONE), NOW)

    assert (4, 2) == (status["dueRuns"], status["runningRuns"])
    assert "2030-01-01T00:00:00Z" == status["lastObservationTime"]


def test_numbers_alone_wait_for_half_a_minute() -> None:
    first = status_of(FINE, NOW)
    moved = {**first, "dueRuns": 5}

    assert not worth_writing(first, first, 1000)
    assert not worth_writing(moved, first, 29)
    assert worth_writing(moved, first, 30)
    later = {**first, "lastObservationTime": "2030-01-01T00:01:00Z"}
    assert not worth_writing(later, first, 299)
    assert worth_writing(later, first, 300)
    assert worth_writing({**first, "readyReplicas": 0}, first, 0)
    assert worth_writing(first, {}, 0)


def test_a_fault_is_told_once_when_it_comes_and_once_when_it_goes() -> None:
    good = status_of(FINE, NOW)
    bad = status_of(dataclasses.replace(FINE, database=GONE), NOW)

    assert ["Unreachable"] == [c.reason for c in news(bad, good)]
    assert [] == news(bad, bad)
    assert {"Ready", "Reachable", "Following"} == {c.reason for c in news(good, bad)}


def test_retention_is_told_of_only_when_it_fails_and_when_it_works_again() -> None:
    def told(now: Facts, before: Facts) -> list[str]:
        return [c.reason for c in news(status_of(now, NOW), status_of(before, NOW))]

    assert [] == told(of(**KEEPS), FINE)
    assert [] == told(of(**KEEPS, paused=False), of(**KEEPS))
    assert ["Unreachable"] == told(pruned(Pruning(GONE)), of(**KEEPS))
    assert ["Pruning"] == told(pruned(Pruning()), pruned(Pruning(GONE)))
    assert [] == told(FINE, pruned(Pruning()))


def _times(status: dict[str, Any]) -> dict[str, set[str]]:
    times: dict[str, set[str]] = {}
    for condition in status["conditions"]:
        times.setdefault(condition["lastTransitionTime"], set()).add(condition["type"])
    return times
