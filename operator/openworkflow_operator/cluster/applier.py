"""Carries out a plan in the cluster: objects, then ranks of pods, then their number.

Each object is an attempt of its own, whose failure leaves the others their turn; and nothing that
exists and is not the resource's is ever touched.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import DELETION_COST_ANNOTATION, KIND, worker_name
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.attempts import Attempts, Contested, Waiting, What
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.store import Object, Store
from openworkflow_operator.decide.faults import BEING_DELETED, CONTESTED, NOT_APPLIED, Fault
from openworkflow_operator.decide.planner import Plan
from openworkflow_operator.decide.pods import Trouble, refusal_reason, words_of
from openworkflow_operator.desired.drift import differences
from openworkflow_operator.desired.resources import APPLIED_ANNOTATION, Manifest, is_owned
from openworkflow_operator.report.metrics import Metrics

logger = logging.getLogger(__name__)


#: What trying again does not change. An object that is too large is refused with 413.
_REFUSALS: Final = (400, 403, 413, 422)
#: A field that there is none of, or twice of: the API server takes that for a fault of its own.
_UNREADABLE_PATCH: Final = "failed to create typed patch object"
#: Of an object that is contested, so many are named.
_MOST_FIELDS: Final = 3


class NameTaken(Exception):
    """There is such an object, and it is not the resource's; the message may say whose."""


@dataclass(slots=True)
class Applied:
    """What did not work, by object."""

    faults: list[Fault] = field(default_factory=list)
    failure: ClusterError | None = None
    """What came of a try at this visit, if a later one may succeed without being told to come."""
    next_try: float = math.inf
    """In how many seconds it is no longer too early for what was not tried at this visit."""
    unseen: set[str] = field(default_factory=set)
    """Deployments that were there, and that the plan knew nothing of."""
    scaled: set[str] = field(default_factory=set)
    """Deployments whose number of pods was set."""

    def waits(self, kind: Kind, name: str, waiting: Waiting) -> None:
        """One object could not be had as desired the last time that this was tried."""
        failure = self.failure
        self.note(kind, name, waiting.error)
        self.failure, self.next_try = failure, min(self.next_try, waiting.seconds)

    def note(self, kind: Kind, name: str, error: Exception) -> None:
        """One object could not be had as desired."""
        if isinstance(error, NameTaken):
            self.faults.append(Fault(kind.name, name, Trouble.NAME_TAKEN, str(error)))
        elif isinstance(error, ClusterError):
            self.failure = error
            is_refused = error.status in _REFUSALS or _UNREADABLE_PATCH in error.message
            reason = refusal_reason(error.message) if is_refused else NOT_APPLIED
            self.faults.append(Fault(kind.name, name, reason, words_of(error.message)))


class Applier:
    """Changes the cluster, and takes what it answers into the store at once."""

    def __init__(
        self, cluster: Cluster, store: Store, metrics: Metrics, attempts: Attempts
    ) -> None:
        self._cluster, self._store, self._metrics = cluster, store, metrics
        self._attempts = attempts

    async def apply(self, resource: WorkflowNamespace, decided: Plan) -> Applied:
        """Carry out as much of the plan as can be."""
        applied, parts = Applied(), (decided, *decided.others.values())
        for kind, manifest in (each for part in parts for each in part.apply):
            if kind is kinds.DEPLOYMENT and not self._has_account(resource):
                continue  # its pods would run as somebody else
            await self._apply(resource, kind, manifest, applied)
        for kind, name in decided.delete:
            await self._delete(resource, kind, name, applied)
        for part in parts:
            await self._rank(resource, part, applied)
            await self._scale(resource, part, applied)
        for each in self._attempts.contests(resource.key):
            applied.faults.append(Fault(each.kind, each.name, CONTESTED, words_of(each)))
        applied.faults += self._being_deleted(resource)
        return applied

    def _being_deleted(self, resource: WorkflowNamespace) -> list[Fault]:
        """What was deleted and finalizers hold: as desired, yet nobody acts on it."""
        owned = list(self._store.owned(resource.key, resource.uid).items())
        fleets = self._store.fleets(resource.key, resource.uid).values()
        owned += [(kinds.DEPLOYMENT, fleet) for fleet in fleets]
        leaving = [(kind, item["metadata"]) for kind, item in owned]
        return [
            Fault(kind.name, metadata["name"], BEING_DELETED, words_of(", ".join(finalizers)))
            for kind, metadata in leaving
            if "deletionTimestamp" in metadata and (finalizers := metadata.get("finalizers"))
        ]

    async def _attempt(
        self,
        resource: WorkflowNamespace,
        what: What,
        kind: Kind,
        applied: Applied,
        do: Callable[[], Awaitable[object]],
    ) -> None:
        """Do it unless it is too early; what fails costs nothing else."""
        try:
            self._attempts.check(resource.key, what)
            await do()
        except Waiting as waiting:
            applied.waits(kind, what.name, waiting)
        except (ClusterError, NameTaken) as error:
            applied.note(kind, what.name, error)
            self._attempts.failed(resource.key, what, error)
            line = "%s %s of %s could not be had as desired (%s): %s"
            logger.warning(line, kind.name, what.name, resource.key, what.verb, _said(error))
        else:
            self._attempts.worked(resource.key, what)

    async def _apply(
        self, resource: WorkflowNamespace, kind: Kind, manifest: Manifest, applied: Applied
    ) -> None:
        metadata = manifest["metadata"]
        wanted = metadata["annotations"][APPLIED_ANNOTATION]
        what = What(kind.name, metadata["name"], "apply", wanted)
        live = self._store.get(kind, Key(resource.key.namespace, what.name))

        async def apply() -> None:
            self._store.put(kind, await self._make(resource, kind, manifest, applied))
            if self._attempts.is_undone(resource.key, what):
                fields = "it is deleted"
                if live is not None:
                    fields = ", ".join(differences(manifest, live)[:_MOST_FIELDS])
                self._contested(resource.key, what, fields)

        await self._attempt(resource, what, kind, applied, apply)

    async def _make(
        self, resource: WorkflowNamespace, kind: Kind, manifest: Manifest, applied: Applied
    ) -> Object:
        """Create the object, or change it if it is the resource's. Raises NameTaken."""
        child = Key(resource.key.namespace, manifest["metadata"]["name"])
        live = self._store.get(kind, child)
        for attempt in ("as known", "as found"):
            if live is not None and not is_owned(live, resource.uid):
                raise NameTaken(_EARLIER if _is_of_an_earlier(live, resource) else "")
            uid = None if live is None else live["metadata"]["uid"]
            try:
                return await self._cluster.apply(kind, manifest, uid)
            except ClusterError as error:
                if attempt == "as found" or error.status not in (409, 422):
                    raise
                # There is one that nobody told of: without the label, or another of this name.
                live = await self._cluster.find(kind, *child)
                if (None if live is None else live["metadata"]["uid"]) == uid:
                    raise
                if live is not None and kind is kinds.DEPLOYMENT:
                    # Its pods were not counted: how many there should be is decided anew.
                    applied.unseen.add(child.name)
                    manifest = _with_replicas_of(live, manifest)
        raise AssertionError

    async def _delete(
        self, resource: WorkflowNamespace, kind: Kind, name: str, applied: Applied
    ) -> None:
        live = self._store.get(kind, Key(resource.key.namespace, name))
        if live is None or not is_owned(live, resource.uid):
            return
        uid = live["metadata"]["uid"]
        delete = partial(self._cluster.delete, kind, resource.key.namespace, name, uid)
        what = What(kind.name, name, "delete", uid)
        await self._attempt(resource, what, kind, applied, delete)

    async def _rank(self, resource: WorkflowNamespace, part: Plan, applied: Applied) -> None:
        """Have idle pods go first; without a rank the fleet shrinks all the same."""
        for pod, cost in part.deletion_costs.items():
            annotation = {DELETION_COST_ANNOTATION: str(cost)}
            rank = partial(self._annotate, resource.key.namespace, pod, annotation)
            what = What(kinds.POD.name, pod, "rank")
            await self._attempt(resource, what, kinds.POD, applied, rank)

    async def _annotate(self, namespace: str, pod: str, annotations: dict[str, str]) -> None:
        try:
            await self._cluster.annotate(kinds.POD, namespace, pod, annotations)
        except ClusterError as error:
            if not error.is_gone:
                raise

    async def _scale(self, resource: WorkflowNamespace, part: Plan, applied: Applied) -> None:
        child, replicas = Key(resource.key.namespace, part.deployment), part.scale_to
        live = self._store.get(kinds.DEPLOYMENT, child)
        if replicas is None or live is None or not is_owned(live, resource.uid):
            return
        if child.name in applied.unseen:
            return
        if replicas > part.was and not self._has_account(resource):
            return
        what = What(kinds.DEPLOYMENT.name, child.name, "scale", str(replicas))

        async def scale() -> None:
            self._store.scaled(child, await self._cluster.scale(*child, replicas))
            if part.reverted:
                self._contested(resource.key, what, "spec.replicas")
            applied.scaled.add(child.name)

        await self._attempt(resource, what, kinds.DEPLOYMENT, applied, scale)
        if child.name in applied.scaled and replicas != part.was:
            direction = "up" if replicas > part.was else "down"
            self._metrics.scale_operations.labels(*resource.key, direction).inc()

    def _contested(self, key: Key, what: What, fields: str) -> None:
        """Count a change by somebody that was put right: after many, the next one is later."""
        self._attempts.failed(key, what, Contested(what.kind, what.name, fields))

    def _has_account(self, resource: WorkflowNamespace) -> bool:
        """Whether pods would run as the account that the operator made for them.

        They name it, and whoever can make a resource must not get the rights of another's account.
        """
        child = Key(resource.key.namespace, worker_name(resource.key.name))
        account = self._store.get(kinds.SERVICE_ACCOUNT, child)
        return account is not None and is_owned(account, resource.uid)


def _with_replicas_of(live: Object, manifest: Manifest) -> Manifest:
    if "replicas" not in manifest["spec"]:
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "replicas": live["spec"]["replicas"]}}


_EARLIER: Final = "it is of a resource of this name that was deleted, and goes with it"


def _is_of_an_earlier(live: Object, resource: WorkflowNamespace) -> bool:
    """Whether the garbage collector deletes it soon: whoever made both need do nothing."""
    owners = live["metadata"].get("ownerReferences") or ()
    names = [(o.get("kind"), o.get("name")) for o in owners if o.get("controller") is True]
    return names == [(KIND, resource.key.name)]


def _said(error: Exception) -> str:
    return "exists and is not its own" if isinstance(error, NameTaken) else str(error)
