"""What is told by Events, and by whose hand it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from openworkflow_operator.api.managers import managers_of
from openworkflow_operator.api.spec import Worker
from openworkflow_operator.decide.planner import Plan
from openworkflow_operator.decide.rollout import (
    Action,
    Hold,
    Promote,
    Retire,
    StartCanary,
    StopCanary,
)
from openworkflow_operator.report.announcements import announcements
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.status import status_of
from tests.unit.operator.test_status import FINE, RESOURCE

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BEFORE = replace(RESOURCE, status=status_of(replace(FINE, template="t1"), NOW))


def told(template: str = "t1", plan: Plan | None = None, **changes: Any) -> list[str]:
    resource = replace(BEFORE, **changes)
    status = status_of(replace(FINE, resource=resource, template=template), NOW)
    found = announcements(resource, plan or Plan("orders-worker"), status, scaled=False)
    return [f"{each.kind} {each.reason}: {each.message}" for each in found]


def test_nothing_is_told_when_nothing_changed() -> None:
    assert [] == told()


def test_a_pin_is_told_with_who_set_it_and_again_when_it_changes() -> None:
    """`kubectl scale wfns/orders --replicas=0` stops a fleet, and nobody could see who it was."""
    by = {"replicas": "kubectl"}
    assert ["Normal Pinned: `replicas` was set to 0 (by kubectl)"] == told(replicas=0, managers=by)
    pinned = replace(BEFORE, replicas=0)
    seen = replace(FINE, resource=pinned, template="t1")
    again: dict[str, Any] = {"status": status_of(seen, NOW)}

    assert [] == told(replicas=0, **again)
    assert told(replicas=3, **again)[0].endswith("set to 3 (through the scale subresource)")
    assert "Unpinned" in told(**again)[0]


def test_a_pause_and_a_change_of_the_workers_are_told_with_who_made_them() -> None:
    by = {"paused": "kubectl-annotate", "worker": "argocd-controller"}

    assert any(
        "Paused: " in line and line.endswith("(by kubectl-annotate)")
        for line in told(paused=True, managers=by)
    )
    changed = told(template="t2", worker=Worker("shop:2"), managers=by)
    assert [
        "Normal TemplateChanged: `worker` was changed (by argocd-controller): shop:2"
    ] == changed


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Promote("b", 10), "Normal BuildPromoted: build b takes 10 %"),
        (Hold("b"), "Warning BuildHeld: build b"),
        (StartCanary("b", "smoke"), "Normal CanaryStarted: build b has to pass a run of smoke"),
        (StopCanary("b"), "Normal CanaryStopped"),
        (Retire("b", "move"), "Normal BuildRetired: build b is forgotten, and its runs are moved"),
    ],
)
def test_each_action_of_a_rollout_is_told(action: Action, words: str) -> None:
    (line,) = told(plan=Plan("orders-worker", actions=[action]))

    assert line.startswith(words)


def test_a_resource_that_is_new_was_changed_by_nobody() -> None:
    fresh = replace(RESOURCE, replicas=2, managers={"replicas": "kubectl"})
    facts: Facts = replace(FINE, resource=fresh, template="t1")
    found = announcements(fresh, Plan("orders-worker"), status_of(facts, NOW), scaled=False)

    assert "Pinned" not in {each.reason for each in found}


def test_the_manager_is_the_last_one_that_set_the_field() -> None:
    def entry(manager: str, time: str | None, **fields: Any) -> dict[str, Any]:
        return {"manager": manager, "time": time, "fieldsV1": fields}

    metadata: dict[str, Any] = {
        "managedFields": [
            entry("kubectl", "2030-01-02T00:00:00Z", **{"f:spec": {"f:replicas": {}}}),
            entry("helm", "2030-01-01T00:00:00Z", **{"f:spec": {"f:replicas": {}, "f:worker": {}}}),
            entry("odd", None, **{"f:spec": 5}),
            {"manager": "none"},
            entry("argocd", "2030-01-04T00:00:00Z", **{"f:spec": {"f:paused": {}}}),
            entry(
                "kubectl-annotate",
                "2030-01-03T00:00:00Z",
                **{"f:metadata": {"f:annotations": {"f:openworkflow.dev/paused": {}}}},
            ),
        ]
    }

    known = {"replicas": "kubectl", "worker": "helm"}
    assert known | {"paused": "argocd"} == managers_of(metadata)
    metadata["annotations"] = {"openworkflow.dev/paused": "true"}
    assert known | {"paused": "kubectl-annotate"} == managers_of(metadata)
    assert {} == managers_of({})
