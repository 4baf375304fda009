"""Decides what to change: a pure function of what was observed.

    observe ──> plan ──> apply ──> report

A plan is complete and idempotent: carried out twice, or half and then again, it leads to the same
fleet. There is one writer of the number of pods, the scale subresource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import (
    DATABASE_ANNOTATION,
    SCALER_FIELD_MANAGER,
    deployment_name,
)
from openworkflow_operator.api.spec import Key, ScalingMode, WorkflowNamespace
from openworkflow_operator.decide.observation import DatabaseView, Observation
from openworkflow_operator.decide.pods import Pod, fleet_of, replicas_of
from openworkflow_operator.decide.rollout import Action, Phase, Verdict
from openworkflow_operator.decide.scaling import Decision, Demand, Limit, Memory, Policy, decide
from openworkflow_operator.decide.unserved import Inquiry, can_answer, heeded, inquire, told
from openworkflow_operator.desired.drift import has_drifted
from openworkflow_operator.desired.resources import Manifest, is_owned, wanted_objects

Object = Mapping[str, Any]

_LONGEST_NAMES: Final = 128


@dataclass(frozen=True, slots=True)
class Recollection:
    """What the operator remembers of a resource between two visits; losing it is harmless."""

    memory: Memory = field(default_factory=Memory)
    target: int | None = None
    """The number of pods last decided."""
    limit: Limit = Limit.NONE
    wanted: int = 0
    serial: int = -1
    """The last look at the database that a decision took into account."""
    builds: Mapping[str, Recollection] = field(default_factory=dict)
    """What is remembered of each build, where there are any."""
    verdict: Verdict | None = None
    """On the rollout, from the last look that was newer than what was done about it."""
    verdict_serial: int = -1
    inquiry: Inquiry | None = None
    """Whether this code serves what nobody says that they serve."""
    shares: Mapping[str, int] | None = None
    """Percent of the new runs that each build takes, as last seen."""
    acted_serial: int = -1
    """Looks up to this one may have missed what the operator did in the database."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything a plan depends on."""

    resource: WorkflowNamespace
    build: str
    """The build that the resource's section `worker` stands for."""
    live: Mapping[Kind, Object]
    pods: Sequence[Pod]
    database: DatabaseView | None
    replicas_limit: int
    """The operator-wide limit for one resource."""
    database_digest: str | None = None
    """Digest of the connection URL; None while the Secret cannot be read."""
    service_monitors_exist: bool = False
    conflict: Key | None = None
    """The older resource that acts in place of this one."""
    waits: bool = False
    """Whether it is not known yet if there is an older resource."""
    fleets: Mapping[str, Object] = field(default_factory=dict)
    """The Deployments of builds."""
    pods_are_known: bool = True
    """Whether there are no others than these `pods`."""
    is_crowded: bool = False
    """No node takes one of the pods, whichever build it is of."""

    @property
    def deployment(self) -> Object | None:
        """The Deployment that is planned."""
        return self.live.get(kinds.DEPLOYMENT)

    @property
    def replicas(self) -> int:
        """Number of pods, as desired so far."""
        return replicas_of(self.deployment)

    @property
    def is_left_alone(self) -> bool:
        """Whether nothing may be changed."""
        return self.conflict is not None or self.waits or self.resource.paused


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: apply, delete, rank, scale."""

    deployment: str
    """The name of the Deployment that is scaled."""
    apply: Sequence[tuple[Kind, Manifest]] = ()
    delete: Sequence[tuple[Kind, str]] = ()
    deletion_costs: Mapping[str, int] = field(default_factory=dict)
    """New costs by pod name; the cheapest pods go first."""
    scale_to: int | None = None
    was: int = 0
    reverted: str = ""
    """Who had changed the number of pods, which is put right."""
    next: Recollection = field(default_factory=Recollection)
    others: Mapping[str, Plan] = field(default_factory=dict)
    """What to do with the pods of other builds."""
    actions: Sequence[Action] = ()
    """In the database, at the end."""
    phases: Mapping[str, tuple[Phase, str]] = field(default_factory=dict)
    """Where each build stands, and why."""


def plan(observed: Observed, past: Recollection, now: float) -> Plan:
    """Return what to change. `now` is a monotonic clock in seconds."""
    resource = observed.resource
    name = deployment_name(resource.key.name, resource.build)
    if observed.is_left_alone:
        return Plan(name, was=observed.replicas, next=replace(past, target=None))
    past = _decided(observed, past, now)
    wanted = _wanted(observed)
    if observed.deployment is None and observed.database_digest is None:
        # Pods could not start without their Secret; everything else can be there already.
        others = {kind: m for kind, m in wanted.items() if kind is not kinds.DEPLOYMENT}
        applied = _changes(observed, others, None)
        return Plan(name, apply=applied, delete=_obsolete(observed, wanted), next=past)
    target = _target(observed, past)
    return Plan(
        name,
        apply=_changes(observed, wanted, target),
        delete=_obsolete(observed, wanted),
        deletion_costs=_deletion_costs(observed, target),
        scale_to=_scale(observed, target),
        was=observed.replicas,
        reverted=_changed_by_others(observed, target),
        next=past,
    )


def policy_of(resource: WorkflowNamespace, replicas_limit: int) -> Policy:
    """The limits of the resource within those of the operator."""
    scaling = resource.scaling
    return Policy(
        min_replicas=min(scaling.min_replicas, replicas_limit),
        max_replicas=min(scaling.max_replicas, replicas_limit),
        concurrency=resource.worker.concurrency,
        target_latency=scaling.target_latency_seconds,
        scale_in_delay=scaling.scale_in_delay_seconds,
    )


def _decided(observed: Observed, past: Recollection, now: float) -> Recollection:
    """Take a new look at the database into account, once."""
    view = observed.database
    serial = -1 if view is None else view.serial
    if serial == past.serial and past.target is not None:
        return past
    demand: Demand | None = None
    busy: Mapping[str, int] = {}
    if isinstance(view, Observation) and serial != past.serial:
        demand, busy = view.demand, view.busy
    fleet = fleet_of(observed.deployment, observed.pods, busy)
    if not observed.pods_are_known:
        fleet = replace(fleet, busy=fleet.replicas)  # nobody knows which of them hold runs
    decision: Decision
    policy = policy_of(observed.resource, observed.replicas_limit)
    if demand is None:
        decision, memory = decide(policy, fleet, None, past.memory, now)
        known = replace(past, memory=memory, target=decision.replicas, serial=serial)
        return replace(known, builds={}, verdict=None, shares=None)
    template = observed.resource.build or observed.build
    inquiry = inquire(demand, template, can_answer(observed.deployment), past.inquiry, now)
    decision, memory = decide(policy, fleet, heeded(demand, inquiry), past.memory, now)
    decision = told(decision, inquiry)
    known = Recollection(memory, decision.replicas, decision.limit, decision.wanted, serial)
    return replace(known, inquiry=inquiry)


def _target(observed: Observed, past: Recollection) -> int | None:
    """The number of pods to have; None where somebody else decides."""
    resource = observed.resource
    if resource.replicas is not None:
        return min(resource.replicas, observed.replicas_limit)
    return None if resource.scaling.mode is ScalingMode.EXTERNAL else past.target


def _wanted(observed: Observed) -> dict[Kind, Manifest]:
    digest = observed.database_digest or _live_digest(observed.deployment)
    exist, is_crowded = observed.service_monitors_exist, observed.is_crowded
    return wanted_objects(observed.resource, digest, exist, is_crowded)


def _changes(
    observed: Observed, wanted: Mapping[Kind, Manifest], target: int | None
) -> list[tuple[Kind, Manifest]]:
    changed = []
    for kind, manifest in wanted.items():
        live = observed.live.get(kind)
        if not has_drifted(manifest, live):
            continue
        if kind is kinds.DEPLOYMENT and target is not None and not _scaler_owns_replicas(live):
            # Leaving `replicas` out before the scaler owns it would set it to the default of 1.
            replicas = target if live is None else observed.replicas
            manifest = {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}
        changed.append((kind, manifest))
    return changed


def _obsolete(observed: Observed, wanted: Mapping[Kind, Manifest]) -> list[tuple[Kind, str]]:
    """Objects the resource no longer wants; only those that it owns."""
    return [
        (kind, live["metadata"]["name"])
        for kind, live in observed.live.items()
        if kind not in wanted and is_owned(live, observed.resource.uid)
    ]


def _deletion_costs(observed: Observed, target: int | None) -> dict[str, int]:
    """Before shrinking, rank the pods by the runs they hold; unchanged ranks cost nothing."""
    if target is None or target >= observed.replicas:
        return {}
    busy = observed.database.busy if isinstance(observed.database, Observation) else {}
    active = (pod for pod in observed.pods if not pod.terminating)
    return {p.name: busy.get(p.name, 0) for p in active if p.deletion_cost != busy.get(p.name, 0)}


def _scale(observed: Observed, target: int | None) -> int | None:
    if target is None:
        return None
    live = observed.deployment
    is_settled = live is not None and observed.replicas == target and _scaler_owns_replicas(live)
    return None if is_settled else target


def _changed_by_others(observed: Observed, target: int | None) -> str:
    """Which other manager owns the number of pods, if it is not the one decided."""
    live = observed.deployment
    if live is None or target is None or observed.replicas == target:
        return ""
    owners = _owners_of_replicas(live)
    if any(owner.startswith("openworkflow-operator") for owner in owners):
        return ""
    return ", ".join(owners)[:_LONGEST_NAMES]


def _scaler_owns_replicas(live: Object | None) -> bool:
    return SCALER_FIELD_MANAGER in _owners_of_replicas(live)


def _owners_of_replicas(live: Object | None) -> list[str]:
    entries = ((live or {}).get("metadata") or {}).get("managedFields") or ()
    return [
        entry["manager"]
        for entry in entries
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]


def _live_digest(live: Object | None) -> str | None:
    """While the Secret cannot be read the fleet keeps the digest it has: it is not rolled."""
    template = ((live or {}).get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    digest: str | None = annotations.get(DATABASE_ANNOTATION)
    return digest
