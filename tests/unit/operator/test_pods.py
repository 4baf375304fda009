"""What keeps a pod from starting, as the operator reads it from the pod's status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from openworkflow_operator.decide.pods import Pod, Trouble

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-23T11:59:59Z"}}
WAITING: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}}


def ended(started: str = "11:59:50") -> dict[str, Any]:
    times = {"startedAt": f"2026-11-23T{started}Z", "finishedAt": "2026-11-23T11:59:51Z"}
    return {"terminated": {"exitCode": 1, **times}}


def trouble(
    state: dict[str, Any], last: dict[str, Any], restarts: int, ready: str = "False"
) -> Trouble | None:
    container = {"state": state, "lastState": last, "restartCount": restarts}
    conditions = [{"type": "Ready", "status": ready}]
    status = {"containerStatuses": [container], "conditions": conditions}
    return Pod.parse({"metadata": {"name": "pod"}, "status": status}, NOW).trouble


@pytest.mark.parametrize("state", [WAITING, RUNNING, ended(), {"waiting": {}}])
def test_a_pod_in_a_crash_loop_is_so_at_each_moment_of_it(state: dict[str, Any]) -> None:
    """The kubelet says CrashLoopBackOff only between the tries."""
    assert Trouble.CRASH_LOOPING is trouble(state, ended(), restarts=2)


@pytest.mark.parametrize(
    ("state", "last", "restarts"),
    [
        (RUNNING, {}, 0),
        (RUNNING, ended(), 1),
        (ended(), {}, 0),
        (RUNNING, ended(started="11:40:00"), 7),
        (ended(started="11:40:00"), ended(), 7),
        (RUNNING, {"terminated": {"exitCode": 137}}, 7),
    ],
    ids=["starts", "once", "ended", "worked", "worked-until-now", "times-unknown"],
)
def test_a_restart_alone_is_no_crash_loop(
    state: dict[str, Any], last: dict[str, Any], restarts: int
) -> None:
    assert trouble(state, last, restarts) is None


def test_a_pod_that_became_ready_at_last_has_no_trouble() -> None:
    assert trouble(RUNNING, ended(), restarts=9, ready="True") is None
