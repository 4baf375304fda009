"""The conditions and numbers a user sees: a pure function of what was observed and decided.

Types and reasons are part of the API. Every condition is there from the first reconciliation on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from openworkflow_operator.api.spec import Key, ScalingMode, WorkflowNamespace
from openworkflow_operator.decide.observation import (
    DatabaseProblem,
    DatabaseReason,
    DatabaseView,
    Observation,
)
from openworkflow_operator.decide.scaling import Limit
from openworkflow_operator.desired.workload import selector_labels
from openworkflow_operator.report.build_status import builds_of, rolled_out
from openworkflow_operator.report.conditions import Condition
from openworkflow_operator.report.facts import Facts, Object
from openworkflow_operator.report.objects import objects_applied
from openworkflow_operator.report.schedules import schedules_stored
from openworkflow_operator.report.workers import VERIFIED, verified, workers_available

#: Numbers alone do not cost a write more often than this.
REFRESH_SECONDS: Final = 30.0
#: Nor do the times alone; an older `lastReportTime` says that no operator keeps the status.
REFRESH_TIME_SECONDS: Final = 300.0

#: What changes with every run or visit; of an older CRD the last three are dropped, which must not
#: cost a write at each visit.
_NUMBERS: Final = frozenset(
    {"dueRuns", "runningRuns", "lastObservationTime", "builds", "conditions"}
    | {"usage", "lastReportTime", "operator", "template"}
)
#: Conditions whose messages count runs, or repeat what the cluster counts.
_COUNTING: Final = frozenset({"RolledOut", "Ready", "WorkersAvailable", VERIFIED})

#: Reasons of RetentionActive and SchedulesStored that only repeat what the resource says.
_UPKEEP: Final = frozenset({"RetentionActive", "SchedulesStored"})
_AS_WANTED: Final = frozenset({"KeptForever", "Paused", "NotPruned", "NotDeclared", "NotStored"})


def conditions_of(facts: Facts) -> list[Condition]:
    """All conditions, the summary first."""
    if facts.conflict is not None:
        return _in_conflict(facts.conflict, facts.resource.key)
    database = _inherited(_database(facts.database), facts)
    objects = objects_applied(facts.faults, facts.resource.paused)
    workers, template = workers_available(facts), verified(facts)
    parts = [database, workers]
    if any(fault.is_refusal for fault in facts.faults):
        parts.insert(1, objects)
    if template.status == "False":
        parts.append(template)
    failed = next((part for part in parts if part.status != "True"), None)
    ready = (
        Condition("Ready", "True", "Ready", _READY[template.status == "True"])
        if failed is None
        else Condition("Ready", failed.status, failed.reason, failed.message)
    )
    others = [_scaling(facts), _limited(facts), _retention(facts), *rolled_out(facts.phases)]
    inherited = [_inherited(condition, facts) for condition in others]
    upkeep = [*inherited, schedules_stored(facts.resource, facts.scheduled)]
    return [ready, database, workers, template, objects, *upkeep, _paused(facts.resource)]


_READY: Final = {
    True: "the database is read and the fleet is as desired",
    False: "the database is read and the fleet is as desired; no worker of the present template "
    "was ready yet, see Verified",
}


def _inherited(condition: Condition, facts: Facts) -> Condition:
    """What the operator before this one found, until this one has looked.

    A restart of the operator is no news of a fleet, and takes nothing back.
    """
    resource, is_walk = facts.resource, condition.reason == "NotPruned"
    if not is_walk and not (facts.is_fresh and facts.database is None):
        return condition
    if condition.status != "Unknown" and condition.type != "ScalingLimited":
        return condition
    for c in resource.status.get("conditions") or ():
        is_same = c.get("observedGeneration") == resource.generation and c["reason"] != "Conflict"
        if c["type"] == condition.type and is_same:
            return Condition(c["type"], c["status"], c["reason"], c["message"])
    return condition


def status_of(facts: Facts, now: datetime) -> dict[str, Any]:
    """The whole status, with transition times carried over from the last one."""
    resource, last = facts.resource, facts.resource.status
    live = (facts.deployment or {}).get("status") or {}
    selector = ",".join(f"{k}={v}" for k, v in sorted(selector_labels(resource).items()))
    status: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "replicas": live.get("replicas", 0),
        "readyReplicas": live.get("readyReplicas", 0),
        "desiredReplicas": facts.desired,
        "selector": selector,
        "template": facts.template,
        "lastReportTime": _timestamp(now),
        "conditions": _dated(conditions_of(facts), last, resource.generation, now),
    }
    if facts.installation is not None:
        status["operator"] = facts.installation.mark
    if facts.phases and facts.is_fresh and facts.database is None and "builds" in last:
        status["builds"] = last["builds"]
    elif facts.phases:
        status["builds"] = builds_of(facts.phases, facts.fleets, facts.pods, facts.database)
    numbers = ("dueRuns", "runningRuns", "lastObservationTime", "lastScaleTime")
    status |= {name: last[name] for name in numbers if last.get(name) is not None}
    if facts.database is not None and not isinstance(facts.database, DatabaseProblem):
        demand = facts.database.demand
        status["dueRuns"] = demand.due + demand.unserved
        status["runningRuns"] = facts.database.demand.running
        status["lastObservationTime"] = _timestamp(facts.database.at)
    if facts.usage is not None and facts.usage.samples:
        status["usage"] = facts.usage.as_status()
    if facts.scaled:
        status["lastScaleTime"] = _timestamp(now)
    return status


def worth_writing(status: Object, last: Object, seconds_since_write: float) -> bool:
    """Whether to write it: at once when it says something new, else only now and then."""
    changed = {k for k in status.keys() | last.keys() if status.get(k) != last.get(k)}
    if _without_numbers(status) != _without_numbers(last):
        return True
    if changed - {"lastObservationTime", "lastReportTime"}:
        return seconds_since_write >= REFRESH_SECONDS
    return bool(changed) and seconds_since_write >= REFRESH_TIME_SECONDS


def _without_numbers(status: Object) -> dict[str, Any]:
    """The status less what changes with every run; words on a build count its runs too."""
    return {
        **{name: value for name, value in status.items() if name not in _NUMBERS},
        "builds": [
            {k: v for k, v in build.items() if k not in ("runsLeft", "nextWakeTime", "message")}
            for build in status.get("builds") or ()
        ],
        "conditions": [
            {k: v for k, v in c.items() if k != "message" or c["type"] not in _COUNTING}
            for c in status.get("conditions") or ()
        ],
    }


def news(status: Object, last: Object) -> list[Condition]:
    """Conditions that changed and that somebody should hear of, for Events."""
    before = {c["type"]: (c["status"], c["reason"]) for c in last.get("conditions") or ()}
    found = []
    for c in status["conditions"]:
        was = before.get(c["type"])
        is_new = was is not None or c["status"] == "False" or c["type"] == "Ready"
        told_elsewhere = c["type"] in ("Ready", "ScalingActive") and c["status"] != "True"
        told_elsewhere |= c["type"] == VERIFIED and c["status"] == "Unknown"
        as_wanted = c["type"] in _UPKEEP and c["reason"] in _AS_WANTED
        changed = was != (c["status"], c["reason"])
        if is_new and changed and not told_elsewhere and not as_wanted:
            found.append(Condition(c["type"], c["status"], c["reason"], c["message"]))
    return found


def _in_conflict(other: Key, key: Key) -> list[Condition]:
    # Who else uses a database is not told across namespaces.
    name = f"the older WorkflowNamespace {other.name}"
    elder = name if other.namespace == key.namespace else "an older WorkflowNamespace elsewhere"
    message = f"{elder} has the same database and `namespaceId`, and acts"
    names = (
        "DatabaseReachable",
        "WorkersAvailable",
        VERIFIED,
        "ObjectsApplied",
        "ScalingActive",
        "ScalingLimited",
        "RetentionActive",
        "SchedulesStored",
        "Paused",
    )
    unknown = [Condition(name, "Unknown", "Conflict") for name in names]
    return [Condition("Ready", "False", "Conflict", message), *unknown]


def _database(view: DatabaseView | None) -> Condition:
    match view:
        case None:
            message = "the database was not read yet"
            return Condition("DatabaseReachable", "Unknown", DatabaseReason.NOT_OBSERVED, message)
        case DatabaseProblem(reason=reason, message=message):
            return Condition("DatabaseReachable", "False", reason, message)
        case _:
            message = "the run counts are read"
            return Condition("DatabaseReachable", "True", DatabaseReason.REACHABLE, message)


def _scaling(facts: Facts) -> Condition:
    name, resource = "ScalingActive", facts.resource
    if resource.paused:
        return Condition(name, "False", "Paused", "the resource is paused")
    if resource.replicas is not None:
        message = f"`replicas` pins the fleet to {resource.replicas}"
        return Condition(name, "False", "Pinned", message)
    if resource.scaling.mode is ScalingMode.EXTERNAL:
        return Condition(name, "False", "External", "`scaling.mode` leaves it to somebody else")
    if facts.database is None:
        return Condition(name, "Unknown", DatabaseReason.NOT_OBSERVED, "not read yet")
    if isinstance(facts.database, DatabaseProblem):
        message = "the fleet is held as it is until the database can be read"
        return Condition(name, "False", "DatabaseUnreachable", message)
    return Condition(name, "True", "Following", "the fleet follows the run counts")


def _limited(facts: Facts) -> Condition:
    messages = {
        Limit.NONE: "the fleet is as large as the runs need",
        Limit.MAX_REPLICAS: "the runs need more workers than `scaling.maxReplicas` allows",
        Limit.PODS_BLOCKED: "more workers are needed, but those there are do not start",
        Limit.RUNS_NOT_PICKED_UP: (
            "runs wait beside idle workers: do the workers serve these workflows and versions?"
        ),
    }
    limited = facts.limit is not Limit.NONE
    seen = facts.database if isinstance(facts.database, Observation) else None
    if facts.limit is Limit.RUNS_NOT_PICKED_UP and seen and seen.demand.unserved_names:
        names = ", ".join(seen.demand.unserved_names)
        messages[facts.limit] = f"no worker serves these workflows, of which runs wait: {names}"
    return Condition(
        "ScalingLimited", "True" if limited else "False", facts.limit, messages[facts.limit]
    )


def _retention(facts: Facts) -> Condition:
    name, resource = "RetentionActive", facts.resource
    if not resource.retention_seconds:
        message = "`retention` is not set: finished runs are kept forever"
        return Condition(name, "False", "KeptForever", message)
    if resource.paused:
        return Condition(name, "False", "Paused", "the resource is paused")
    if facts.pruning is None:
        return Condition(name, "Unknown", "NotPruned", "nothing was deleted yet")
    if (problem := facts.pruning.problem) is not None:
        return Condition(name, "False", problem.reason, problem.message)
    message = "finished runs are deleted within an hour after their time is over"
    return Condition(name, "True", "Pruning", message)


def _paused(resource: WorkflowNamespace) -> Condition:
    if resource.paused:
        return Condition("Paused", "True", "Paused", "the operator changes nothing")
    return Condition("Paused", "False", "NotPaused", "the operator keeps the fleet as desired")


def _dated(
    conditions: Sequence[Condition], last: Object, generation: int, now: datetime
) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in last.get("conditions") or ()}
    dated = []
    for condition in conditions:
        was = before.get(condition.type)
        since = (
            was["lastTransitionTime"]
            if was is not None and was["status"] == condition.status
            else _timestamp(now)
        )
        dated.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since,
                "reason": str(condition.reason),
                "message": condition.message,
            }
        )
    return dated


def _timestamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
