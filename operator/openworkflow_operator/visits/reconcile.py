"""One visit of one resource: observe → plan → apply → report.

Level-triggered: it does not matter what led to the visit. Whatever fails is tried again, later and
later; nothing is remembered that a new operator could not find out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.applier import Applied, Applier
from openworkflow_operator.cluster.attempts import Attempts, Waiting, What
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.credentials import Credentials, CredentialsReader
from openworkflow_operator.cluster.mounts import Mounts
from openworkflow_operator.cluster.recorder import Recorder
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.cluster.strays import Strays
from openworkflow_operator.cluster.usages import Usages
from openworkflow_operator.database.connection import Told
from openworkflow_operator.database.observatory import Observatory
from openworkflow_operator.database.routes import Router
from openworkflow_operator.database.upkeep import Upkeep
from openworkflow_operator.decide.installations import Elders, Installation
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseView, Observation
from openworkflow_operator.decide.planner import Observed, Plan
from openworkflow_operator.decide.pods import Pod, is_crowded, replicas_of
from openworkflow_operator.decide.rivals import Rivals, Standing
from openworkflow_operator.report.announcements import announcements
from openworkflow_operator.report.build_status import Phases, obstructed
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.fleet_report import fleet_report
from openworkflow_operator.report.metrics import Metrics
from openworkflow_operator.report.status import status_of, worth_writing
from openworkflow_operator.report.told import told_of
from openworkflow_operator.visits.visit import Remembered, Visit, identity_of

logger = logging.getLogger(__name__)

#: How soon to look again for what a resource needs and nobody announces.
UNTOLD_RETRY_SECONDS = 4.0
#: How many Secrets to read at once when it must be known who is the oldest.
SECRETS_AT_ONCE = 8


class Reconciler:
    """Makes the cluster as the resources want it."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        observatory: Observatory,
        upkeep: Upkeep,
        router: Router,
        metrics: Metrics,
        enqueue: Callable[[Key], None],
        replicas_limit: int,
        service_monitors_exist: Callable[[], bool],
        installation: Installation | None,
    ) -> None:
        self._cluster, self._store = cluster, store
        self._observatory, self._upkeep, self._router = observatory, upkeep, router
        self._metrics = metrics
        self._replicas_limit = replicas_limit
        self._service_monitors_exist = service_monitors_exist
        self._installation = installation
        self._elders = Elders(installation)
        self._credentials = CredentialsReader(cluster)
        self._recorder = Recorder(cluster)
        self._attempts = Attempts()
        self._applier = Applier(cluster, store, metrics, self._attempts)
        self._mounts, self._usages = Mounts(cluster), Usages(cluster)
        self._strays = Strays(cluster, store)
        self._remembered: dict[Key, Remembered] = {}
        self._rivals = Rivals(enqueue)
        self._census = asyncio.Lock()

    async def reconcile(self, key: Key) -> float | None:
        """Visit the resource; returns after how many seconds to do so again, if nothing else will.

        Raises ClusterError where a later visit may succeed.
        """
        raw = self._store.resource(key)
        resource = _parsed(raw)
        if resource is None or _is_being_deleted(raw):
            if resource is not None and (holders := _holders(raw)):
                words = _BEING_DELETED.format(", ".join(holders))
                await self._recorder.tell(resource, "Warning", "BeingDeleted", words)
            self._forget(key)
            self._elders.forget(key)
            return None
        if await self._stands_back(resource):
            self._forget(key)
            return None
        visit = await self._begin(resource)
        observed = await self._observe(visit)
        past = replace(visit.remembered.past, acted_serial=self._router.acted(key))
        decided = visit.decide(observed, past, time.monotonic())
        visit.remembered.past = decided.next
        applied = await self._applier.apply(resource, decided)
        if applied.unseen:
            # It was decided without pods that there are: the next visit must not go by that.
            visit.remembered.past = past
        self._route(visit, observed, decided)
        await self._report(visit, observed, decided, applied)
        if applied.failure is not None:
            raise applied.failure
        # Nobody tells of a Secret that appears (the operator may not watch them), of an object that
        # is not its own and goes, and of a pod that takes long to start.
        waits = isinstance(observed.database, DatabaseProblem) or bool(applied.faults)
        waits |= any(pod.is_starting for pod in observed.pods)
        again = min(applied.next_try, UNTOLD_RETRY_SECONDS if waits else math.inf)
        return again if again < math.inf else None

    async def _stands_back(self, resource: WorkflowNamespace) -> bool:
        """Whether an older installation keeps the resource; then it is told, and nothing done."""
        if not self._elders.keep(resource, time.monotonic()):
            return False
        message = _KEPT.format(resource.status["operator"].get("id"))
        logger.warning("%s: %s", resource.key, message)
        await self._recorder.tell(resource, "Warning", "AnotherInstallation", message)
        return True

    def _forget(self, key: Key) -> None:
        self._remembered.pop(key, None)
        self._observatory.forget(key)
        self._router.forget(key)
        self._upkeep.forget(key)
        self._attempts.forget(key)
        self._credentials.forget(key)
        self._mounts.forget(key)
        self._usages.forget(key)
        self._strays.forget(key)
        self._metrics.forget(key)
        self._rivals.withdraw(key)

    async def _begin(self, resource: WorkflowNamespace) -> Visit:
        remembered = self._remember(resource)
        view = self._observatory.view(resource.key)
        in_trouble = view is None or isinstance(view, DatabaseProblem)
        credentials = await self._credentials.read(resource, in_trouble)
        await self._claim(resource, credentials)
        return Visit.begin(resource, credentials, remembered)

    def _remember(self, resource: WorkflowNamespace) -> Remembered:
        """What is known of it; nothing of one that was deleted and had its name."""
        known = self._remembered.get(resource.key)
        if known is not None and known.uid != resource.uid:
            self._forget(resource.key)
        return self._remembered.setdefault(resource.key, Remembered(resource.uid))

    async def _observe(self, visit: Visit) -> Observed:
        key, uid = visit.key, visit.resource.uid
        database = self._look(visit)
        standing, conflict = self._rivals.standing(key)
        if conflict != visit.remembered.conflict:
            logger.info("%s yields to %s", key, conflict or "nobody")
            visit.remembered.conflict = conflict
        place = visit.place if standing is Standing.ACTS else None
        self._upkeep.attend(visit.resource, place, visit.spared_build)
        if place is not None and isinstance(database, Observation) and not visit.resource.paused:
            await self._strays.bring_back(visit.resource, database.builds or {})
        now = datetime.now(UTC)
        pods = [Pod.parse(pod, now) for pod in self._store.pods(key)]
        pods = await self._mounts.diagnose(key, pods)
        return Observed(
            resource=visit.resource,
            build=visit.build,
            live=self._store.owned(key, uid),
            pods=pods,
            pods_are_known=self._store.knows(kinds.POD, key.namespace),
            is_crowded=is_crowded(pods),
            database=database,
            database_digest=visit.credentials.digest,
            service_monitors_exist=self._service_monitors_exist(),
            conflict=conflict,
            waits=standing is Standing.WAITS,
            replicas_limit=self._replicas_limit,
            fleets=self._store.fleets(key, uid),
        )

    def _look(self, visit: Visit) -> DatabaseView | None:
        """Keep the observatory informed of what to look at; returns what it last saw."""
        key, target = visit.key, visit.target(self._replicas_limit)
        if target is None or self._rivals.standing(key)[1] is not None:
            self._observatory.forget(key)
            self._router.forget(key)
            return visit.credentials.problem
        self._observatory.watch(key, target)
        view = self._observatory.view(key)
        if view is not None and self._observatory.is_tried(key):
            self._rivals.learn(key, view)
        return view

    async def _claim(self, resource: WorkflowNamespace, credentials: Credentials) -> None:
        """Say what the resource claims, once it is known what all that may be its rivals do."""
        if not self._rivals.knows(resource.key):
            # An older one may be visited later; until all are known, nobody can tell who acts.
            async with self._census:
                elders = self._unknown_elders(resource)
                for first in range(0, len(elders), SECRETS_AT_ONCE):
                    some = elders[first : first + SECRETS_AT_ONCE]
                    await asyncio.gather(*map(self._take_claim, some))
        self._rivals.claim(resource, identity_of(resource, credentials), credentials.dsn)

    def _unknown_elders(self, resource: WorkflowNamespace) -> list[WorkflowNamespace]:
        unknown = (key for key in self._store.resources() if not self._rivals.knows(key))
        elders = (_parsed(self._store.resource(key)) for key in unknown)
        return [
            elder
            for elder in elders
            if elder is not None
            and not _is_being_deleted(self._store.resource(elder.key))
            and elder.rank < resource.rank
            and elder.namespace_id == resource.namespace_id
            and elder.database.schema == resource.database.schema
        ]

    async def _take_claim(self, resource: WorkflowNamespace) -> None:
        credentials = await self._credentials.read(resource, False)
        if self._store.resource(resource.key) is not None:  # not deleted in the meantime
            self._rivals.claim(resource, identity_of(resource, credentials), credentials.dsn)

    def _route(self, visit: Visit, observed: Observed, decided: Plan) -> None:
        """Have carried out in the database what the rollout decided, beside the reconciliations."""
        view = observed.database
        if decided.actions:
            if visit.place is not None:
                self._router.start(visit.key, decided.actions, *visit.place)
        elif isinstance(view, Observation) and view.serial > self._router.acted(visit.key):
            self._router.settle(visit.key)

    async def _report(
        self, visit: Visit, observed: Observed, decided: Plan, applied: Applied
    ) -> None:
        key, resource, remembered = visit.key, visit.resource, visit.remembered
        # What was applied is in the store.
        deployments = self._store.deployments(key, resource.uid, visit.pinned_build)
        was_set = decided.deployment in applied.scaled
        scaled = was_set and decided.scale_to != decided.was
        facts = Facts(
            resource=resource,
            database=observed.database,
            pruning=self._upkeep.pruned(key),
            scheduled=self._upkeep.scheduled(key),
            deployment=next(iter(deployments), None),
            pods=observed.pods,
            pods_are_known=observed.pods_are_known,
            desired=sum(map(replicas_of, deployments)),
            limit=decided.next.limit,
            faults=applied.faults,
            conflict=observed.conflict,
            waits=observed.waits,
            installation=self._installation,
            scaled=scaled,
            phases=self._phases(visit, decided),
            fleets=self._store.fleets(key, resource.uid),
            template=visit.build,
            usage=await self._usages.observe(observed, visit.build),
            is_fresh=not remembered.has_looked,
        )
        remembered.has_looked |= observed.database is not None
        status = status_of(facts, datetime.now(UTC))
        self._metrics.report(key, fleet_report(facts, decided, status))
        if worth_writing(status, resource.status, time.monotonic() - remembered.written_at):
            if not await self._write(resource, status, applied):
                return
            words = json.dumps(told_of(resource, status))
            self._observatory.tell(key, Told(resource.namespace_id, str(key), words))
        told = replace(decided, reverted=decided.reverted if was_set else "")
        for each in announcements(resource, told, status, scaled=scaled):
            await self._recorder.tell(resource, each.kind, each.reason, each.message)

    def _phases(self, visit: Visit, decided: Plan) -> Phases:
        """Where each build stands; what is decided and not yet written is not so yet."""
        remembered = visit.remembered
        if not self._router.is_busy(visit.key):
            remembered.phases = decided.phases
        before = {b: phase for b, phase in remembered.phases.items() if b in decided.phases}
        return obstructed({**decided.phases, **before}, self._router.problem(visit.key))

    async def _write(
        self, resource: WorkflowNamespace, status: dict[str, Any], applied: Applied
    ) -> bool:
        """Write it; False where it is too early after a try that was refused."""
        what = What(kinds.WORKFLOW_NAMESPACE.name, resource.key.name, "status")
        try:
            self._attempts.check(resource.key, what)
            written = await self._cluster.write_status(resource.key, status)
        except Waiting as waiting:
            applied.next_try = min(applied.next_try, waiting.seconds)
            return False
        except ClusterError as error:
            if error.is_gone:  # deleted in the meantime
                return True
            self._attempts.failed(resource.key, what, error)
            raise
        self._attempts.worked(resource.key, what)
        self._remembered[resource.key].written_at = time.monotonic()
        self._store.put(kinds.WORKFLOW_NAMESPACE, written)
        return True


#: `keep` has seen that there is a mark.
_KEPT: Final = (
    "an older installation of the operator, in namespace {}, acts on this resource; once nobody "
    "has written its status for seven minutes, as after an uninstall, this one does"
)
_BEING_DELETED: Final = (
    "the resource is being deleted, and its finalizers hold it ({}): its fleet is left as it is, "
    "and scaled no more"
)
#: Of the garbage collector, for `kubectl delete --cascade=foreground` and `orphan`: soon gone.
_OF_THE_CLUSTER: Final = ("foregroundDeletion", "orphan")


def _holders(raw: Mapping[str, Any] | None) -> list[str]:
    """The finalizers that somebody has to see to."""
    finalizers = () if raw is None else raw["metadata"].get("finalizers") or ()
    return [each for each in finalizers if each not in _OF_THE_CLUSTER]


def _is_being_deleted(raw: Mapping[str, Any] | None) -> bool:
    return raw is not None and "deletionTimestamp" in raw["metadata"]


def _parsed(raw: Mapping[str, Any] | None) -> WorkflowNamespace | None:
    """The resource; None when it is gone, or from before the schema."""
    if raw is None:
        return None
    try:
        return WorkflowNamespace.parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The next edit of such an object will be refused.
        name = raw["metadata"].get("name")
        logger.error("%s is not a WorkflowNamespace: %s", name, type(error).__name__)
        return None
