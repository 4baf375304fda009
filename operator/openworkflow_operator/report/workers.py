"""What is said of the workers: whether there are as many as decided, and whether they start. Pure.

`WorkersAvailable` is about the pods there are, `Verified` about the template that `worker` asks
for, of which there may be none: a fleet at zero, or a rollout whose old pods still serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openworkflow_operator.api import kinds
from openworkflow_operator.decide.faults import CONTESTED, NOT_APPLIED, worst_of
from openworkflow_operator.decide.pods import (
    Pod,
    Trouble,
    is_observed,
    of_newest_template,
    ready_replicas_of,
    replicas_of,
    said_of,
    worst,
)
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.report.conditions import Condition
from openworkflow_operator.report.facts import Facts, Object

VERIFIED: Final = "Verified"

_ADVICE: Final = {
    Trouble.IMAGE_PULL_FAILED: "the image cannot be pulled: check `worker.image` and its secrets",
    Trouble.CRASH_LOOPING: "workers start and crash: see their logs",
    Trouble.OUT_OF_MEMORY: "workers are killed for want of memory, and their logs do not say so: "
    "raise `worker.resources.limits.memory`, or lower `worker.concurrency`",
    Trouble.UNSCHEDULABLE: "no node takes the pods: check requests, selectors and capacity",
    Trouble.CONFIGURATION: "a Secret or ConfigMap that `worker` names, or its key, is missing",
    Trouble.VOLUME_NOT_MOUNTED: "a volume of `worker.volumes` cannot be mounted",
    Trouble.QUOTA_EXCEEDED: "a ResourceQuota of the namespace refuses pods: raise it, or set what "
    "it asks for in `worker.resources`",
    Trouble.ADMISSION_DENIED: "a policy of the cluster refuses the objects or pods of the fleet",
    Trouble.NAME_TAKEN: "an object that is not this resource's has a name that the fleet needs",
}


def workers_available(facts: Facts) -> Condition:
    """Whether the pods that were decided on are there; those of a build on trial do not count."""
    name, on_trial = "WorkersAvailable", _on_trial(facts)
    pods = [pod for pod in facts.pods if on_trial is None or pod.build != on_trial]
    desired = facts.desired
    if on_trial is not None:
        desired -= replicas_of(facts.fleets.get(on_trial))
    ready = sum(1 for pod in pods if pod.ready and not pod.terminating)
    if not facts.pods_are_known:
        ready = min(ready, _counted_ready(facts, on_trial))
    refused = [fault for fault in facts.faults if fault.hits_pods and fault.is_refusal]
    has_account = all(fault.kind != kinds.SERVICE_ACCOUNT.name for fault in refused)
    if ready >= desired > 0 and has_account:
        return Condition(name, "True", "WorkersReady", "all workers are ready")
    deployment = facts.deployment if on_trial is None else _in_use(facts, on_trial)
    if (reason := worst_of(tuple(refused))) is not None:
        words = next((fault.words for fault in refused if fault.reason == reason), "")
        return Condition(name, "False", reason, _message(Trouble(reason), words))
    if desired > 0 and not facts.pods_are_known:
        return _NOT_LISTED
    if (trouble := worst(deployment, pods)) is not None:
        message = _message(trouble, said_of(trouble, deployment, pods))
        return Condition(name, "False", trouble, message)
    if deployment is None:
        return Condition(name, "Unknown", "NotCreated", "the fleet was not made yet")
    if desired == 0 and any(
        f.kind == kinds.DEPLOYMENT.name and f.reason == NOT_APPLIED for f in facts.faults
    ):
        message = "the number of workers could not be set; it is tried again"
        return Condition(name, "Unknown", NOT_APPLIED, message)
    if desired == 0:
        return Condition(name, "True", "ScaledToZero", "nothing to do, so there are no workers")
    if ready == 0:
        return Condition(name, "False", "WorkersStarting", "no worker is ready yet")
    return Condition(name, "True", "WorkersReady", f"{ready} of {desired} workers are ready")


def _counted_ready(facts: Facts, on_trial: str | None) -> int:
    """Ready pods as the Deployments count them: of pods that were listed once, none may be left."""
    if not facts.phases:
        return ready_replicas_of(facts.deployment)
    fleets = (fleet for build, fleet in facts.fleets.items() if build != on_trial)
    return sum(map(ready_replicas_of, fleets))


def verified(facts: Facts) -> Condition:
    """Whether a worker of the desired template has been ready; once it was, that stays true.

    What was found stands as long as the template does, also when the fleet is back at zero.
    """
    before = _before(facts)
    if before is not None and before.status == "True":
        return before
    live, unknown = facts.wanted, before or _NOT_STARTED
    if live is None or not _is_as_wanted(facts) or not is_observed(live):
        return unknown
    status = live.get("status") or {}
    if status.get("updatedReplicas") == status.get("replicas") and status.get("readyReplicas"):
        return Condition(VERIFIED, "True", "WorkersStarted", "a worker of this template was ready")
    pods = _pods_of(facts)
    newest = of_newest_template(live, pods)
    if (trouble := worst(live, newest)) is None:
        return unknown
    message = _message(trouble, said_of(trouble, live, newest))
    if any(pod.ready and not pod.terminating for pod in facts.pods if pod not in newest):
        message += "; workers of the template before serve"
    return Condition(VERIFIED, "False", trouble, message)


_NOT_LISTED: Final = Condition(
    "WorkersAvailable",
    "Unknown",
    "PodsNotListed",
    "the API server gives the operator no list of the namespace's pods, so the fleet is not made "
    "smaller: check the operator's Role there, and its log",
)
_NOT_STARTED: Final = Condition(
    VERIFIED,
    "Unknown",
    "NotStarted",
    "no worker of this template was ready yet; one starts when there is something to do",
)


def _is_as_wanted(facts: Facts) -> bool:
    """Whether this visit saw to it that the Deployment has the template.

    It has not where nothing may be changed, and is not applied without an account for its pods.
    """
    needed = (kinds.DEPLOYMENT.name, kinds.SERVICE_ACCOUNT.name)
    is_left_alone = facts.resource.paused or facts.waits
    # A policy that has images come from a mirror is no reason not to say that they start.
    faults = [fault for fault in facts.faults if fault.reason != CONTESTED]
    return not is_left_alone and not any(fault.kind in needed for fault in faults)


def _message(trouble: Trouble, words: str) -> str:
    return f"{_ADVICE[trouble]} ({words})" if words else _ADVICE[trouble]


def _before(facts: Facts) -> Condition | None:
    """What was last said of the same template."""
    last = facts.resource.status
    if last.get("template") != facts.template:
        return None
    for c in last.get("conditions") or ():
        if c["type"] == VERIFIED and c["reason"] != "Conflict":
            return Condition(VERIFIED, c["status"], c["reason"], c["message"])
    return None


def _pods_of(facts: Facts) -> Sequence[Pod]:
    if not facts.phases:
        return facts.pods
    return [pod for pod in facts.pods if pod.build == facts.template]


def _on_trial(facts: Facts) -> str | None:
    """The desired build, while another one takes the new runs."""
    if not facts.phases:
        return None
    phases = {build: phase for build, (phase, _) in facts.phases.items()}
    is_in_use = phases.get(facts.template) in (Phase.CURRENT, Phase.RAMPING, Phase.UNKNOWN)
    others = any(p is Phase.CURRENT for b, p in phases.items() if b != facts.template)
    return facts.template if others and not is_in_use else None


def _in_use(facts: Facts, on_trial: str) -> Object | None:
    found = (
        facts.fleets[build]
        for build, (phase, _) in facts.phases.items()
        if build != on_trial and phase is Phase.CURRENT and build in facts.fleets
    )
    return next(found, None)
