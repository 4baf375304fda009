"""Worker pods as the operator sees them, and what keeps them from starting. Pure."""

from __future__ import annotations

import re
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
#: A container that never ran: its message is the runtime's, not what the program wrote.
_START_REASONS: Final = frozenset({"StartError", "ContainerCannotRun"})
#: How much of the cluster's words a condition repeats.
MOST_WORDS: Final = 300


class Trouble(StrEnum):
    """Why a pod does not become ready; the values are condition reasons."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    OUT_OF_MEMORY = "OutOfMemory"
    UNSCHEDULABLE = "Unschedulable"
    CONFIGURATION = "ContainerConfigInvalid"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
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
    words: str = ""
    """What the cluster says of its trouble."""
    uid: str = ""
    revision: str | None = None
    """Which template of its Deployment it is made of."""
    created_at: str = ""
    is_creating: bool = False
    """Whether the pod has a node, and no container yet: volumes are mounted, images pulled."""

    @property
    def is_starting(self) -> bool:
        """Whether it may yet turn out why the pod does not become ready."""
        return not (self.ready or self.terminating or self.trouble)

    @classmethod
    def parse(cls, pod: Object, now: datetime) -> Self:
        """From the object as the API server gives it."""
        metadata, status = pod["metadata"], pod.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        ready = (conditions.get("Ready") or {}).get("status") == "True"
        trouble, words = (None, "") if ready else _trouble(pod, conditions, now)
        labels = metadata.get("labels") or {}
        return cls(
            name=metadata["name"],
            ready=ready,
            terminating="deletionTimestamp" in metadata
            or status.get("phase") in ("Succeeded", "Failed"),
            trouble=trouble,
            words=words,
            build=labels.get(BUILD_LABEL),
            uid=metadata.get("uid", ""),
            revision=labels.get("pod-template-hash"),
            created_at=metadata.get("creationTimestamp", ""),
            is_creating=trouble is None and _is_creating(status, conditions),
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


def ready_replicas_of(deployment: Object | None) -> int:
    """Pods that are ready, as Kubernetes counts them: also where they cannot be listed."""
    return int(((deployment or {}).get("status") or {}).get("readyReplicas") or 0)


def worst(deployment: Object | None, pods: Iterable[Pod]) -> Trouble | None:
    """The trouble to report: why pods are refused, else the most frequent one of a pod."""
    if (refused := refusal(deployment)) is not None:
        return refused
    found = [pod.trouble for pod in pods if pod.trouble is not None and not pod.terminating]
    return max(sorted(set(found)), key=found.count, default=None)


def said_of(trouble: Trouble, deployment: Object | None, pods: Iterable[Pod]) -> str:
    """What the cluster says of the trouble, of one pod where many have it."""
    if (refused := _refused(deployment)) is not None:
        return refused
    found = (pod.words for pod in pods if pod.trouble is trouble and not pod.terminating)
    return min((words for words in found if words), default="")


def is_crowded(pods: Iterable[Pod]) -> bool:
    """Whether no node takes one of the pods."""
    return any(pod.trouble is Trouble.UNSCHEDULABLE and not pod.terminating for pod in pods)


def ready_of(pods: Iterable[Pod], build: str | None) -> set[str]:
    """Names of the pods that serve, of one build where there are builds."""
    serving = (pod for pod in pods if pod.ready and not pod.terminating)
    return {pod.name for pod in serving if build is None or pod.build == build}


def of_newest_template(deployment: Object, pods: Sequence[Pod]) -> list[Pod]:
    """The pods of the template that the Deployment has now, as far as they can be told apart."""
    status = deployment.get("status") or {}
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    if not updated or not is_observed(deployment):
        return []
    if updated == total:
        return list(pods)
    newest = max(pods, key=lambda pod: pod.created_at, default=None)
    found = [pod for pod in pods if newest is not None and pod.revision == newest.revision]
    return found if len([pod for pod in found if not pod.terminating]) == updated else []


def is_observed(deployment: Object) -> bool:
    """Whether the Deployment's status is about its present template."""
    observed = (deployment.get("status") or {}).get("observedGeneration", 0)
    return int(observed) >= int((deployment.get("metadata") or {}).get("generation", 0))


def refusal(deployment: Object | None) -> Trouble | None:
    """Why the API server refuses pods of the Deployment, if it does."""
    words = _refused(deployment)
    return None if words is None else refusal_reason(words)


def refusal_reason(message: str) -> Trouble:
    """Quota or policy; both answer 403 and only the message tells them apart."""
    is_quota = "exceeded quota" in message or "failed quota" in message
    return Trouble.QUOTA_EXCEEDED if is_quota else Trouble.ADMISSION_DENIED


def words_of(message: object) -> str:
    """The cluster's words on one line, without the name of a pod, which is another at each try."""
    text = re.sub(r'^\S+ "[^"]*" is (forbidden|invalid): ', "", str(message or ""))
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"


def _refused(deployment: Object | None) -> str | None:
    status = (deployment or {}).get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return words_of(condition.get("message"))
    return None


def _trouble(
    pod: Object, conditions: Mapping[str, Object], now: datetime
) -> tuple[Trouble | None, str]:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, words = waiting.get("reason", ""), words_of(waiting.get("message"))
        if reason in _IMAGE_REASONS:
            return Trouble.IMAGE_PULL_FAILED, words
        if reason == "CrashLoopBackOff" or _keeps_crashing(container):
            return _crash(pod, container)
        if reason in _CONFIG_REASONS:
            return Trouble.CONFIGURATION, words
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False":
        since = datetime.fromisoformat(scheduled.get("lastTransitionTime") or now.isoformat())
        if (now - since).total_seconds() >= UNSCHEDULABLE_AFTER_SECONDS:
            return Trouble.UNSCHEDULABLE, words_of(scheduled.get("message"))
    return None, ""


def _is_creating(status: Object, conditions: Mapping[str, Object]) -> bool:
    if (conditions.get("PodScheduled") or {}).get("status") != "True":
        return False
    states = [c.get("state") or {} for c in status.get("containerStatuses") or ()]
    reasons = [(state.get("waiting") or {}).get("reason") for state in states]
    return all(reason == "ContainerCreating" for reason in reasons)


def _crash(pod: Object, container: Object) -> tuple[Trouble, str]:
    """Why it ended the last time; never what the program wrote, which may hold secrets."""
    ended = _ended(container)
    if ended.get("reason") == "OOMKilled":
        return Trouble.OUT_OF_MEMORY, _memory_limit(pod, container.get("name"))
    if ended.get("reason") in _START_REASONS:
        return Trouble.CRASH_LOOPING, words_of(ended.get("message"))
    code, signal = ended.get("exitCode"), ended.get("signal")
    if signal:
        return Trouble.CRASH_LOOPING, f"ended by signal {signal}"
    return Trouble.CRASH_LOOPING, "" if code is None else f"ended with exit code {code}"


def _memory_limit(pod: Object, name: str | None) -> str:
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == name:
            limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            return f"its limit is {limit}" if limit else "it has no limit, so its node had no more"
    return ""


def _ended(container: Object) -> Object:
    states = (container.get("state") or {}, container.get("lastState") or {})
    return next((s["terminated"] for s in states if s.get("terminated")), {})


def _keeps_crashing(container: Object) -> bool:
    """Whether it is between two crashes: the kubelet speaks of a loop only while it waits."""
    if container.get("restartCount", 0) < 2:
        return False
    ended = _ended(container)
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
