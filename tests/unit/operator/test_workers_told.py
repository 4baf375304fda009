"""What is said of workers that do not start: why, in whose words, and for how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from openworkflow_operator.decide.faults import NOT_APPLIED, Fault
from openworkflow_operator.decide.pods import Pod, Trouble, refusal_reason, words_of
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.status import conditions_of, status_of, worth_writing
from tests.unit.operator.test_status import FINE, RESOURCE

NOW = datetime(2030, 1, 1, tzinfo=UTC)
READY = Pod("a", ready=True, revision="old", created_at="2029-01-01T00:00:00Z")
FAILS = Pod(
    "b",
    trouble=Trouble.IMAGE_PULL_FAILED,
    words="no such tag",
    revision="new",
    created_at="2029-01-02T00:00:00Z",
)
TEMPLATE = {"spec": {"containers": [{"image": "image"}]}}


def fleet(replicas: int, ready: int, updated: int, generation: int = 2) -> dict[str, Any]:
    status = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated}
    return {
        "metadata": {"generation": 2},
        "spec": {"replicas": replicas - (ready < replicas), "template": TEMPLATE},
        "status": status | {"observedGeneration": generation},
    }


def of(deployment: Any, *pods: Pod, template: str = "t1", **changes: Any) -> Facts:
    desired = deployment["spec"]["replicas"] if deployment else 0
    return replace(
        FINE, deployment=deployment, pods=pods, desired=desired, template=template, **changes
    )


def told(facts: Facts, kind: str) -> tuple[str, str, str]:
    (found,) = (c for c in conditions_of(facts) if c.type == kind)
    return (found.status, str(found.reason), found.message)


def later(facts: Facts, next_facts: Facts) -> Facts:
    """The next visit, which finds what was written at this one."""
    status = status_of(facts, NOW)
    return replace(next_facts, resource=replace(RESOURCE, status=status))


AT_ZERO = of(fleet(0, 0, 0))
STARTED = of(fleet(2, 2, 2), READY, READY)
PULLING = of(fleet(3, 2, 1), READY, READY, FAILS)
BROKEN = of({**fleet(1, 0, 1), "spec": {"replicas": 1}}, FAILS)


def test_a_fleet_at_zero_does_not_say_that_its_image_is_good() -> None:
    """`kubectl wait --for=condition=Verified` waits for a worker; Ready says what it means."""
    assert ("Unknown", "NotStarted") == told(AT_ZERO, "Verified")[:2]
    assert "see Verified" in told(AT_ZERO, "Ready")[2]
    assert ("True", "WorkersStarted") == told(STARTED, "Verified")[:2]


def test_pods_that_were_listed_once_and_are_not_any_more_are_not_told_as_ready() -> None:
    """They may have crashed long ago, and the fleet was Ready forever."""
    lost = replace(of(fleet(2, 0, 2), READY, READY), desired=2, pods_are_known=False)

    assert ("Unknown", "PodsNotListed") == told(lost, "WorkersAvailable")[:2]
    # One list that does not come is no news of a fleet.
    assert "True" == told(replace(STARTED, pods_are_known=False), "WorkersAvailable")[0]


def test_a_fleet_at_zero_that_could_not_be_scaled_does_not_say_it_is_as_wanted() -> None:
    """Runs were due, the API server did not take the number, and the fleet was Ready."""
    facts = replace(AT_ZERO, faults=[Fault("Deployment", "orders-worker", NOT_APPLIED)])

    assert ("Unknown", "NotApplied") == told(facts, "WorkersAvailable")[:2]
    assert ("Unknown", "NotApplied") == told(facts, "Ready")[:2]


def test_what_was_found_of_a_template_stands_while_the_fleet_is_at_zero() -> None:
    good, bad = later(STARTED, AT_ZERO), later(BROKEN, AT_ZERO)

    assert "True" == told(good, "Verified")[0]
    assert ("False", "ImagePullFailed") == told(bad, "Verified")[:2]
    assert ("False", "ImagePullFailed") == told(bad, "Ready")[:2]


def test_another_template_has_to_start_anew() -> None:
    changed = replace(AT_ZERO, template="t2")

    assert "Unknown" == told(later(STARTED, changed), "Verified")[0]
    assert "Unknown" == told(later(BROKEN, changed), "Verified")[0]


@pytest.mark.parametrize(
    "facts",
    [
        of(fleet(2, 2, 2, generation=1), READY),
        of(fleet(3, 2, 1), READY, READY),
        of(fleet(2, 2, 2), READY, faults=(Fault("Deployment", "x", Trouble.ADMISSION_DENIED),)),
        of(fleet(2, 2, 2), READY, faults=(Fault("ServiceAccount", "x", Trouble.NAME_TAKEN),)),
        replace(STARTED, resource=replace(RESOURCE, paused=True)),
        replace(STARTED, waits=True),
        of(None),
    ],
    ids=[
        "not-observed",
        "old-pods-only",
        "not-applied",
        "without-account",
        "paused",
        "may-yield",
        "not-made",
    ],
)
def test_workers_of_the_template_before_prove_nothing(facts: Facts) -> None:
    assert "Unknown" == told(facts, "Verified")[0]


def test_a_rollout_to_a_missing_image_takes_no_worker_away() -> None:
    assert ("True", "WorkersReady") == told(PULLING, "WorkersAvailable")[:2]
    status, reason, message = told(PULLING, "Ready")
    assert ("False", "ImagePullFailed") == (status, reason)
    assert "no such tag" in message
    assert "workers of the template before serve" in message


def test_pods_of_the_template_before_are_not_blamed_on_the_new_one() -> None:
    old = replace(FAILS, revision="old", created_at="2028-01-01T00:00:00Z")
    starts = Pod("c", revision="new", created_at="2029-01-03T00:00:00Z")

    assert "Unknown" == told(of(fleet(3, 2, 1), READY, old, starts), "Verified")[0]


def test_a_build_on_trial_takes_no_worker_of_the_one_in_use_away() -> None:
    fleets = {"new": fleet(1, 0, 1), "old": fleet(1, 1, 1)}
    fleets["new"]["spec"]["replicas"] = 1
    phases = {"new": (Phase.HELD, "its pods do not start"), "old": (Phase.CURRENT, "")}
    pods = (replace(READY, build="old"), replace(FAILS, build="new"))
    facts = of(fleets["new"], *pods, template="new", phases=phases, fleets=fleets)
    facts = replace(facts, desired=2)

    assert ("True", "WorkersReady") == told(facts, "WorkersAvailable")[:2]
    assert ("False", "ImagePullFailed") == told(facts, "Verified")[:2]


def parsed(**container: Any) -> Pod:
    limits = {"containers": [{"name": "w", "resources": {"limits": {"memory": "64Mi"}}}]}
    status = {"containerStatuses": [{"name": "w", "restartCount": 3, **container}]}
    return Pod.parse({"metadata": {"name": "p"}, "spec": limits, "status": status}, NOW)


def test_a_worker_that_is_killed_for_its_memory_is_told_what_to_raise() -> None:
    """It was CrashLooping, see its logs: and its logs said nothing."""
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    pod = parsed(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=killed)
    facts = of({**fleet(1, 0, 1), "spec": {"replicas": 1}}, pod)

    status, reason, message = told(facts, "WorkersAvailable")
    assert ("False", "OutOfMemory") == (status, reason)
    assert "64Mi" in message
    assert "worker.resources.limits.memory" in message


def test_what_a_program_wrote_is_in_no_condition() -> None:
    """Its last words may be a URL; those of the runtime, which never ran it, are not its own."""
    waits = {"waiting": {"reason": "CrashLoopBackOff"}}
    wrote = {"terminated": {"reason": "Error", "exitCode": 2, "message": "postgresql://u:secret"}}
    never = {"terminated": {"reason": "StartError", "exitCode": 128, "message": "exec: no such"}}

    assert "ended with exit code 2" == parsed(state=waits, lastState=wrote).words
    assert "exec: no such" == parsed(state=waits, lastState=never).words


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        (
            'pods "orders-worker-5d-x2f" is forbidden: failed quota: q: must specify limits.cpu',
            Trouble.QUOTA_EXCEEDED,
            "failed quota: q: must specify limits.cpu",
        ),
        (
            'pods "a-1" is forbidden: exceeded quota: q, used: pods=2, limited: pods=2',
            Trouble.QUOTA_EXCEEDED,
            "exceeded quota: q, used: pods=2, limited: pods=2",
        ),
        (
            'pods "a-2" is forbidden: maximum memory usage per Container is 1Gi',
            Trouble.ADMISSION_DENIED,
            "maximum memory usage per Container is 1Gi",
        ),
        ("a\n\tb" + "x" * 400, Trouble.ADMISSION_DENIED, "a b" + "x" * 296 + "…"),
    ],
)
def test_who_refuses_is_quoted_without_the_name_of_a_pod(
    message: str, reason: Trouble, words: str
) -> None:
    """Each try has another name, and would be another status."""
    failure = {"type": "ReplicaFailure", "status": "True", "message": message}
    facts = of({"spec": {"replicas": 1}, "status": {"conditions": [failure]}})

    assert reason is refusal_reason(message)
    assert words == words_of(message)
    assert told(facts, "WorkersAvailable")[1:] == (reason, told(facts, "Ready")[2])
    assert words in told(facts, "Ready")[2]


def test_an_object_that_is_refused_is_told_with_the_words_of_who_refused() -> None:
    fault = Fault("Service", "orders-worker", Trouble.ADMISSION_DENIED, "only on Mondays")

    assert "only on Mondays" in told(replace(STARTED, faults=(fault,)), "ObjectsApplied")[2]


def test_a_restart_of_the_operator_is_no_news_of_a_fleet() -> None:
    """Ready was Unknown until the first look, and Retention and builds until theirs."""
    phases = {"t1": (Phase.CURRENT, "")}
    fleets = {"t1": fleet(2, 2, 2)}
    pods = [replace(READY, build="t1")] * 2
    seen = of(fleets["t1"], *pods, phases=phases, fleets=fleets)
    unknown = replace(seen, database=None, phases={"t1": (Phase.UNKNOWN, "cannot be read")})
    fresh = later(seen, replace(unknown, is_fresh=True))

    assert not worth_writing(status_of(fresh, NOW), fresh.resource.status, 1e9)
    assert "Unknown" == told(later(seen, unknown), "Ready")[0]
    edited = replace(fresh, resource=replace(fresh.resource, generation=4))
    assert "Unknown" == told(edited, "DatabaseReachable")[0]


def test_a_status_that_nobody_keeps_shows_its_age() -> None:
    status = status_of(STARTED, NOW)
    later = status | {"lastReportTime": "2031-01-01T00:00:00Z"}

    assert "2030-01-01T00:00:00Z" == status["lastReportTime"]
    assert not worth_writing(later, status, 299)
    assert worth_writing(later, status, 301)
