"""What a user sees of the builds: a list, the desired one first, and the condition RolledOut. Pure.

`RolledOut` is True once the desired build takes all new runs; its reasons are the phases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseView, Observation
from openworkflow_operator.decide.pods import Pod, replicas_of
from openworkflow_operator.decide.rollout import MOST_BUILDS as MOST_LOOKED_AT
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.report.conditions import Condition, Truth

Object = Mapping[str, Any]
Phases = Mapping[str, tuple[Phase, str]]

#: As many as the schema of the status allows.
MOST_BUILDS: Final = 50


def rolled_out(phases: Phases) -> list[Condition]:
    """The condition; none for a fleet without builds."""
    if not phases:
        return []
    build, (phase, why) = next(iter(phases.items()))
    truth: Truth = "True" if phase is Phase.CURRENT else "False"
    if phase is Phase.UNKNOWN:
        truth = "Unknown"
    left = sum(1 for other, _ in list(phases.values())[1:] if other is Phase.DRAINING)
    # Of a namespace with very many, some are not looked at.
    many = f"{left} or more" if len(phases) > MOST_LOOKED_AT else str(left)
    words = [f"build {build}", why, f"{many} old builds finish their runs" if left else ""]
    return [Condition("RolledOut", truth, phase, ": ".join(word for word in words if word))]


def obstructed(phases: Phases, problem: DatabaseProblem | None) -> Phases:
    """The phases, the desired build being held if the database did not take what was decided."""
    if problem is None or not phases:
        return phases
    why = f"the database cannot be written ({problem.reason}): {problem.message}"
    return {**phases, next(iter(phases)): (Phase.HELD, why)}


def builds_of(
    phases: Phases,
    fleets: Mapping[str, Object],
    pods: Sequence[Pod],
    database: DatabaseView | None,
) -> list[dict[str, Any]]:
    """The entries of `status.builds`."""
    seen = database if isinstance(database, Observation) else None
    return [
        _entry(build, phase, why, fleets.get(build), pods, seen)
        for build, (phase, why) in list(phases.items())[:MOST_BUILDS]
    ]


def _entry(
    build: str,
    phase: Phase,
    why: str,
    deployment: Object | None,
    pods: Sequence[Pod],
    seen: Observation | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": build, "phase": str(phase)}
    if why:
        entry["message"] = why
    if deployment is not None:
        entry["image"] = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        entry["replicas"] = replicas_of(deployment)
        entry["readyReplicas"] = sum(1 for p in pods if p.build == build and p.ready)
    if seen is not None and (view := (seen.builds or {}).get(build)) is not None:
        entry["newRunsPercent"] = view.share
        entry["runsLeft"] = view.due + view.running
        if view.next_wake_seconds is not None and view.next_wake_seconds < _YEAR:
            wakes = seen.at + timedelta(seconds=view.next_wake_seconds)
            # To the minute: the status is not written for a second of jitter.
            entry["nextWakeTime"] = wakes.strftime("%Y-%m-%dT%H:%M:00Z")
    return entry


_YEAR: Final = 100 * 365 * 86400.0
