"""Due runs that no worker says it serves: one pod is asked, once for each code. Pure.

Only workers know what their code serves, and they say it when they start. So such runs call for a
pod; if pods of this very template have been ready for a while and still nobody serves them, the
answer is no, and they call for none until the template or what waits is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from openworkflow_operator.decide.scaling import Decision, Demand, Limit

#: A worker says what it serves within a second or two of being ready.
ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What was asked, since when somebody could have answered, and whether the answer is no."""

    template: str
    names: tuple[str, ...]
    since: float | None = None
    is_denied: bool = False


def inquire(
    demand: Demand, template: str, can_answer: bool, past: Inquiry | None, now: float
) -> Inquiry | None:
    """The inquiry after this look; None where every run that waits is served."""
    if not demand.unserved:
        return None
    if past is None or (past.template, past.names) != (template, demand.unserved_names):
        past = Inquiry(template, demand.unserved_names)
    if past.is_denied:
        return past
    if not can_answer:
        return replace(past, since=None)
    since = now if past.since is None else past.since
    return replace(past, since=since, is_denied=now - since >= ANSWER_SECONDS)


def heeded(demand: Demand, inquiry: Inquiry | None) -> Demand:
    """The demand less what more pods would not help."""
    if inquiry is None or not inquiry.is_denied:
        return demand
    return replace(demand, unserved=0, oldest_unserved_age=0.0)


def told(decision: Decision, inquiry: Inquiry | None) -> Decision:
    """The decision, which says so where nothing else limits it."""
    if inquiry is None or not inquiry.is_denied or decision.limit is not Limit.NONE:
        return decision
    return replace(decision, limit=Limit.RUNS_NOT_PICKED_UP)


def can_answer(deployment: Mapping[str, Any] | None) -> bool:
    """Whether a pod is ready, and all pods are of the template as it is."""
    if deployment is None:
        return False
    status, wanted = deployment.get("status") or {}, deployment["metadata"].get("generation", 0)
    replicas = status.get("replicas", 0)
    return bool(
        status.get("observedGeneration", -1) >= wanted
        and status.get("readyReplicas", 0) > 0
        and status.get("updatedReplicas", 0) == replicas
    )
