"""Worker pods as the operator sees them, and what keeps them from starting. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from openworkflow_operator.api.names import BUILD_LABEL, DELETION_COST_ANNOTATION
from openworkflow_operator.decide.scaling import Fleet

Object = Mapping[str, Any]

#: A cluster that adds nodes takes about this long; until then a pod is not "unschedulable".
UNSCHEDULABLE_AFTER_SECONDS: Final = 60.0
#: After a run of this length the kubelet starts its back-off anew: it was not a crash at the start.
BACK_OFF_RESET_SECONDS: Final = 600.0

_IMAGE_REASONS: Final = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError"})


class Trouble(StrEnum):
    """Why a pod does not become ready; the values are condition reasons."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    UNSCHEDULABLE = "Unschedulable"
    CONFIGURATION = "ContainerConfigInvalid"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_DENIED = "AdmissionDenied"
    NAME_TAKEN = "NameTaken"


@dataclass(frozen=True, slots=True)
class Pod:
    """One worker pod."""

    name: str
    ready: bool = False
    terminating: bool = False
    trouble: Trouble | None = None
    deletion_cost: int = 0
    build: str | None = None

    @classmethod
    def parse(cls, pod: Object, now: datetime) -> Self:
        """From the object as the API server gives it."""
        metadata, status = pod["metadata"], pod.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        ready = (conditions.get("Ready") or {}).get("status") == "True"
        return cls(
            name=metadata["name"],
            ready=ready,
            terminating="deletionTimestamp" in metadata
            or status.get("phase") in ("Succeeded", "Failed"),
            trouble=None if ready else _trouble(status, conditions, now),
            build=(metadata.get("labels") or {}).get(BUILD_LABEL),
            deletion_cost=_cost((metadata.get("annotations") or {}).get(DELETION_COST_ANNOTATION)),
        )


def fleet_of(deployment: Object | None, pods: Sequence[Pod], busy: Mapping[str, int]) -> Fleet:
    """The fleet at this moment; `busy` has the number of runs that each worker holds, by pod."""
    active = [pod for pod in pods if not pod.terminating]
    waiting = [pod for pod in active if not pod.ready]
    troubled = [pod for pod in waiting if pod.trouble is not None]
    return Fleet(
        replicas=replicas_of(deployment),
        ready=len(active) - len(waiting),
        busy=sum(1 for pod in active if busy.get(pod.name)),
        blocked=2 * len(troubled) > len(waiting) or refusal(deployment) is not None,
    )


def replicas_of(deployment: Object | None) -> int:
    """Pods asked for; 0 while there is no Deployment, and the API's default of 1 for unset."""
    if deployment is None:
        return 0
    replicas = deployment["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def worst(deployment: Object | None, pods: Iterable[Pod]) -> Trouble | None:
    """The trouble to report: why pods are refused, else the most frequent one of a pod."""
    if (refused := refusal(deployment)) is not None:
        return refused
    found = [pod.trouble for pod in pods if pod.trouble is not None and not pod.terminating]
    return max(sorted(set(found)), key=found.count, default=None)


def refusal(deployment: Object | None) -> Trouble | None:
    """Why the API server refuses pods of the Deployment, if it does."""
    status = (deployment or {}).get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal_reason(condition.get("message", ""))
    return None


def refusal_reason(message: str) -> Trouble:
    """Quota or policy; both answer 403 and only the message tells them apart."""
    return Trouble.QUOTA_EXCEEDED if "exceeded quota" in message else Trouble.ADMISSION_DENIED


def _trouble(status: Object, conditions: Mapping[str, Object], now: datetime) -> Trouble | None:
    for container in status.get("containerStatuses") or ():
        reason = ((container.get("state") or {}).get("waiting") or {}).get("reason", "")
        if reason in _IMAGE_REASONS:
            return Trouble.IMAGE_PULL_FAILED
        if reason == "CrashLoopBackOff" or _keeps_crashing(container):
            return Trouble.CRASH_LOOPING
        if reason in _CONFIG_REASONS:
            return Trouble.CONFIGURATION
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False":
        since = datetime.fromisoformat(scheduled.get("lastTransitionTime") or now.isoformat())
        if (now - since).total_seconds() >= UNSCHEDULABLE_AFTER_SECONDS:
            return Trouble.UNSCHEDULABLE
    return None


def _keeps_crashing(container: Object) -> bool:
    """Whether it is between two crashes: the kubelet speaks of a loop only while it waits."""
    if container.get("restartCount", 0) < 2:
        return False
    states = (container.get("state") or {}, container.get("lastState") or {})
    ended: Object = next((s["terminated"] for s in states if s.get("terminated")), {})
    times = [ended.get("startedAt"), ended.get("finishedAt")]
    if not all(times):
        return False
    started, finished = (datetime.fromisoformat(str(time)) for time in times)
    return (finished - started).total_seconds() < BACK_OFF_RESET_SECONDS


def _cost(text: str | None) -> int:
    try:
        return int(text or "0")
    except ValueError:
        return 0
