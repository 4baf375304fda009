"""The plan of a fleet with pinned builds: a Deployment for each, scaled by its own runs. Pure.

The desired build is planned like a fleet of its own; an old one is rendered from the `worker`
section that it was made of, which its Deployment carries, so that it is repaired, follows a rotated
Secret and comes back for a wake-up, and never turns into the new code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import WORKER_ANNOTATION, deployment_name
from openworkflow_operator.api.spec import Worker, WorkflowNamespace
from openworkflow_operator.decide.observation import DatabaseView, NewRuns, Observation
from openworkflow_operator.decide.planner import Observed, Plan, Recollection, plan
from openworkflow_operator.decide.pods import ready_replicas_of, worst
from openworkflow_operator.decide.rollout import (
    BuildFleet,
    BuildView,
    Phase,
    Retire,
    Verdict,
    decide_rollout,
)
from openworkflow_operator.decide.scaling import Demand
from openworkflow_operator.desired.carried import carried

Object = Mapping[str, Any]


def plan_builds(observed: Observed, past: Recollection, now: float) -> Plan:
    """Return what to change. `now` is a monotonic clock in seconds."""
    resource = observed.resource
    target = observed.build
    if observed.is_left_alone:
        phases = past.verdict.phases if past.verdict is not None else {}
        part = _of_build(observed, target, resource.worker, None, share=100, awake=False)
        return replace(plan(part, past, now), phases=phases)
    view = observed.database
    views = view.builds if isinstance(view, Observation) else None
    shares = past.shares if views is None else {b: view.share for b, view in views.items()}
    fleets = {build: _fleet(observed, build) for build in observed.fleets}
    fresh = decide_rollout(target, views, fleets, resource.rollout.gate)
    verdict, parts = _heeded(fresh, observed, past), dict[str, Plan]()
    recipes = ((build, _worker_of(item)) for build, item in observed.fleets.items())
    workers = {build: worker for build, worker in recipes if worker is not None}
    workers[target] = resource.worker
    for build in (target, *sorted(workers.keys() - {target} - verdict.remove)):
        share, awake = _share(build, target, shares, observed), build in verdict.awake
        part = _of_build(observed, build, workers[build], views, share=share, awake=awake)
        before = past.builds.get(build, Recollection())
        parts[build] = plan(part, before, now)
    whole = parts.pop(target)
    removed = [deployment_name(resource.key.name, b) for b in verdict.remove if b in fleets]
    if _is_replaced(observed, target, views):
        removed.append(deployment_name(resource.key.name, None))
    return replace(
        whole,
        delete=[*whole.delete, *((kinds.DEPLOYMENT, name) for name in removed)],
        others={build: _only_pods(part) for build, part in parts.items()},
        actions=verdict.actions,
        phases=verdict.phases,
        next=replace(
            whole.next,
            builds={target: whole.next} | {build: part.next for build, part in parts.items()},
            verdict=fresh if _serial(observed) != past.verdict_serial else past.verdict,
            verdict_serial=_serial(observed),
            acted_serial=past.acted_serial,
            shares=shares,
        ),
    )


def unproven_build(target: str, past: Recollection) -> str | None:
    """The desired build unless it is known to be in use: its canary and first runs decide on it."""
    phases = past.verdict.phases if past.verdict is not None else {}
    is_proven = target in phases and phases[target][0] is Phase.CURRENT
    return None if is_proven else target


def _heeded(fresh: Verdict, observed: Observed, past: Recollection) -> Verdict:
    """The verdict less what must not be based on this look.

    A look from before the operator's own last change decides nothing. And a worker may have claimed
    a run in the very moment in which its build stopped to take new ones: what is removed must have
    been drained at an older look too.
    """
    if _serial(observed) <= past.acted_serial:
        return replace(fresh, actions=(), remove=frozenset())
    before = past.verdict.remove if past.verdict is not None else frozenset[str]()
    if _serial(observed) == past.verdict_serial:
        before = frozenset()
    sure = fresh.remove & before
    actions = [
        action
        for action in fresh.actions
        if not isinstance(action, Retire) or action.leftover != "refuse" or action.build in sure
    ]
    return replace(fresh, actions=actions, remove=sure)


def _serial(observed: Observed) -> int:
    return -1 if observed.database is None else observed.database.serial


def _fleet(observed: Observed, build: str) -> BuildFleet:
    deployment = observed.fleets[build]
    pods = [pod for pod in observed.pods if pod.build == build]
    ready = sum(1 for pod in pods if pod.ready and not pod.terminating)
    is_known = observed.pods_are_known
    return BuildFleet(
        # Of pods that nobody can list there may be some.
        pods=len(pods) if is_known else max(1, len(pods)),
        ready=ready if is_known else ready_replicas_of(deployment),
        trouble=worst(deployment, pods),
        is_stalled=_is_stalled(deployment),
    )


def _is_stalled(deployment: Object) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return any(
        c["type"] == "Progressing"
        and c["status"] == "False"
        and c.get("reason") == "ProgressDeadlineExceeded"
        for c in conditions
    )


def _of_build(
    observed: Observed,
    build: str,
    worker: Worker,
    views: Mapping[str, BuildView] | None,
    *,
    share: int,
    awake: bool,
) -> Observed:
    """What there is to see of one build."""
    live = {kind: item for kind, item in observed.live.items() if kind is not kinds.DEPLOYMENT}
    deployment = observed.fleets.get(build)
    if deployment is not None:
        live[kinds.DEPLOYMENT] = deployment
    return replace(
        observed,
        resource=_resource(observed.resource, build, worker, share, awake),
        live=live,
        pods=[pod for pod in observed.pods if pod.build == build],
        database=_demand(observed, build, views, share),
    )


def _resource(
    resource: WorkflowNamespace, build: str, worker: Worker, share: int, awake: bool
) -> WorkflowNamespace:
    """The resource as this build sees it: its own pods, and limits that fit its part."""
    least = max(resource.scaling.min_replicas if share else 0, int(awake))
    return replace(
        resource,
        build=build,
        worker=worker,
        scaling=replace(resource.scaling, min_replicas=least),
        replicas=resource.replicas if (share and not awake) or resource.replicas == 0 else None,
    )


def _worker_of(deployment: Object) -> Worker | None:
    """What the build was made of; None if somebody broke the annotation: then it is left alone."""
    annotations = deployment["metadata"].get("annotations") or {}
    try:
        return carried(annotations[WORKER_ANNOTATION])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _share(build: str, target: str, shares: Mapping[str, int] | None, observed: Observed) -> int:
    """Percent of the new runs; before any build is promoted, the desired one takes them all.

    Where the shares are not known, a build beside others may be unproven: it is not made larger.
    """
    if shares is None and observed.fleets.keys() - {target}:
        return 0
    if shares is None or not any(shares.values()):
        return 100 if build == target else 0
    return shares.get(build, 0)


def _demand(
    observed: Observed, build: str, views: Mapping[str, BuildView] | None, share: int
) -> DatabaseView | None:
    """The runs that only this build can finish, and its share of those that any can begin."""
    seen = observed.database
    if not isinstance(seen, Observation) or views is None:
        return seen
    own, total = views.get(build, BuildView(0)), seen.demand
    new = seen.new or NewRuns(total.due, total.oldest_due_age, total.saturated)
    waking = max(0, total.waking - sum(view.waking for view in views.values()))
    held = sum(seen.busy.get(pod.name, 0) for pod in observed.pods if pod.build == build)
    demand = Demand(
        due=own.due + math.ceil(new.due * share / 100),
        oldest_due_age=max(own.oldest_due_age, new.oldest_due_age if share else 0.0),
        running=max(own.running, held),
        saturated=own.saturated or (new.saturated and share > 0),
        waking=own.waking + math.ceil(waking * share / 100),
        service_seconds=total.service_seconds,
        unserved=total.unserved if share else 0,
        oldest_unserved_age=total.oldest_unserved_age if share else 0.0,
        unserved_names=total.unserved_names if share else (),
    )
    return replace(seen, demand=demand)


def _is_replaced(observed: Observed, target: str, views: Mapping[str, BuildView] | None) -> bool:
    """Whether the fleet from before there were builds can go: the first build took over."""
    if kinds.DEPLOYMENT not in observed.live or views is None:
        return False
    return target in views and views[target].share == 100


def _only_pods(part: Plan) -> Plan:
    """The part of an old build's plan that concerns its Deployment: all else is the target's."""
    applied = [(kind, manifest) for kind, manifest in part.apply if kind is kinds.DEPLOYMENT]
    return replace(part, apply=applied, delete=())
