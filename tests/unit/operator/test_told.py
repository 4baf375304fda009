"""What people who look at the runs are told of their fleet."""

from __future__ import annotations

from openworkflow_operator.report.told import told_of
from tests.unit.operator.test_status import RESOURCE


def test_a_status_is_told_under_names_of_its_own_and_without_what_is_for_kubernetes() -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": "as desired"}
    dated = {**condition, "lastTransitionTime": "2026-11-01T12:00:00Z", "observedGeneration": 3}
    status = {"replicas": 2, "readyReplicas": 1, "desiredReplicas": 2, "selector": "a=b"}

    told = told_of(RESOURCE, {**status, "conditions": [dated], "dueRuns": 7})

    assert told == {
        "least": 0,
        "most": 10,
        "workers": 2,
        "ready": 1,
        "desired": 2,
        "due": 7,
        "conditions": [{**condition, "since": "2026-11-01T12:00:00Z"}],
    }
