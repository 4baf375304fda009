"""One visit of one resource: observe → plan → apply → report.

Level-triggered: it does not matter what led to the visit. Whatever fails is tried again, later and
later; nothing is remembered that a new operator could not find out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.applier import Applier
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.credentials import Credentials, CredentialsReader
from openworkflow_operator.cluster.mounts import Mounts
from openworkflow_operator.cluster.recorder import Recorder
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.cluster.usages import Usages
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.observatory import Observatory, Target
from openworkflow_operator.database.retention import Pruner, Retention
from openworkflow_operator.database.routes import Router
from openworkflow_operator.decide.build_planner import plan_builds, unproven_build
from openworkflow_operator.decide.faults import Fault
from openworkflow_operator.decide.installations import Elders, Installation
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseView, Observation
from openworkflow_operator.decide.planner import Observed, Plan, Recollection, plan, policy_of
from openworkflow_operator.decide.pods import Pod, is_crowded, replicas_of
from openworkflow_operator.decide.rivals import Identity, Rivals, Standing
from openworkflow_operator.decide.scaling import MOST_COUNTED, observation_cap
from openworkflow_operator.desired.workload import build_of
from openworkflow_operator.report.announcements import announcements
from openworkflow_operator.report.build_status import Phases, obstructed
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.fleet_report import fleet_report
from openworkflow_operator.report.metrics import Metrics
from openworkflow_operator.report.status import status_of, worth_writing

logger = logging.getLogger(__name__)

#: How soon to look again for what a resource needs and nobody announces.
UNTOLD_RETRY_SECONDS = 4.0
#: How many Secrets to read at once when it must be known who is the oldest.
SECRETS_AT_ONCE = 8


@dataclass(slots=True)
class _Visited:
    """What is remembered of a resource between visits."""

    past: Recollection = field(default_factory=Recollection)
    written_at: float = 0.0
    conflict: Key | None = None
    phases: Phases = field(default_factory=dict)
    """Where each build stood when nothing was being changed in the database."""
    has_looked: bool = False
    """Its database was tried by this operator."""


class Reconciler:
    """Makes the cluster as the resources want it."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        observatory: Observatory,
        pruner: Pruner,
        router: Router,
        metrics: Metrics,
        enqueue: Callable[[Key], None],
        replicas_limit: int = 1000,
        service_monitors_exist: Callable[[], bool] = lambda: False,
        installation: Installation | None = None,
    ) -> None:
        self._cluster, self._store = cluster, store
        self._observatory, self._pruner, self._router = observatory, pruner, router
        self._metrics, self._enqueue = metrics, enqueue
        self._replicas_limit = replicas_limit
        self._service_monitors_exist = service_monitors_exist
        self._installation = installation
        self._elders = Elders(installation)
        self._credentials = CredentialsReader(cluster)
        self._recorder = Recorder(cluster)
        self._applier = Applier(cluster, store, metrics)
        self._mounts, self._usages = Mounts(cluster), Usages(cluster)
        self._visited: dict[Key, _Visited] = {}
        self._rivals = Rivals(enqueue)
        self._census = asyncio.Lock()

    async def reconcile(self, key: Key) -> float | None:
        """Visit the resource; returns after how many seconds to do so again, if nothing else will.

        Raises ClusterError where a later visit may succeed.
        """
        resource = _parsed(self._store.resource(key))
        if resource is None:
            self._forget(key)
            self._elders.forget(key)
            return None
        if await self._stands_back(resource):
            self._forget(key)
            return None
        visited = self._visited.setdefault(key, _Visited())
        observed = await self._observe(resource, visited)
        decide = plan_builds if resource.rollout.is_pinned else plan
        past = replace(visited.past, acted_serial=self._router.acted(key))
        decided = decide(observed, past, time.monotonic())
        visited.past = decided.next
        applied = await self._applier.apply(resource, decided)
        await self._route(resource, observed, decided)
        await self._report(resource, visited, observed, decided, applied.faults)
        if applied.failure is not None:
            raise applied.failure
        # Nobody tells of a Secret that appears (the operator may not watch them), of an object that
        # is not its own and goes, and of a pod that takes long to start.
        waits = isinstance(observed.database, DatabaseProblem) or bool(applied.faults)
        waits |= any(pod.is_starting for pod in observed.pods)
        return UNTOLD_RETRY_SECONDS if waits else None

    async def _stands_back(self, resource: WorkflowNamespace) -> bool:
        """Whether an older installation keeps the resource; then it is told, and nothing done."""
        if not self._elders.keep(resource, time.monotonic()):
            return False
        logger.warning("%s is kept by an older installation of the operator", resource.key)
        message = "an older installation of the operator watches this namespace too, and acts"
        await self._recorder.tell(resource, "Warning", "AnotherInstallation", message)
        return True

    def _forget(self, key: Key) -> None:
        self._visited.pop(key, None)
        self._observatory.forget(key)
        self._router.forget(key)
        self._pruner.forget(key)
        self._credentials.forget(key)
        self._mounts.forget(key)
        self._usages.forget(key)
        self._metrics.forget(key)
        self._rivals.withdraw(key)

    async def _observe(self, resource: WorkflowNamespace, visited: _Visited) -> Observed:
        key = resource.key
        view = self._observatory.view(key)
        in_trouble = view is None or isinstance(view, DatabaseProblem)
        credentials = await self._credentials.read(resource, in_trouble)
        await self._claim(resource, credentials)
        conflict = self._rivals.standing(key)[1]
        database = self._look(resource, credentials, visited, conflict)
        standing, conflict = self._rivals.standing(key)
        if conflict != visited.conflict:
            logger.info("%s yields to %s", key, conflict or "nobody")
            visited.conflict = conflict
        self._retain(resource, credentials, visited, standing)
        now = datetime.now(UTC)
        pods = [Pod.parse(pod, now) for pod in self._store.pods(key)]
        pods = await self._mounts.diagnose(key, pods)
        return Observed(
            resource=resource,
            live=self._store.owned(key, resource.uid),
            pods=pods,
            is_crowded=is_crowded(pods),
            database=database,
            database_digest=credentials.digest,
            service_monitors_exist=self._service_monitors_exist(),
            conflict=conflict,
            waits=standing is Standing.WAITS,
            replicas_limit=self._replicas_limit,
            fleets=self._store.fleets(key, resource.uid),
        )

    def _look(
        self,
        resource: WorkflowNamespace,
        credentials: Credentials,
        visited: _Visited,
        conflict: Key | None,
    ) -> DatabaseView | None:
        """Keep the observatory informed of what to look at; returns what it last saw."""
        key = resource.key
        if credentials.dsn is None or conflict is not None:
            self._observatory.forget(key)
            self._router.forget(key)
            return credentials.problem
        policy = policy_of(resource, self._replicas_limit)
        seconds = visited.past.memory.service_seconds
        slots = policy.max_replicas * policy.concurrency
        gate = resource.rollout.gate
        build = build_of(resource) if resource.rollout.is_pinned else None
        question = Question(
            namespace_id=resource.namespace_id,
            due_limit=observation_cap(policy, seconds),
            # Every build may have as many.
            running_limit=4 * MOST_COUNTED if build else min(2 * slots + 1, 4 * MOST_COUNTED),
            lead_seconds=resource.scaling.activation_lead_seconds,
            build=build,
            canary=gate.canary,
            first_runs=gate.failure_limit.first_runs if gate.failure_limit else 0,
        )
        period = resource.scaling.poll_period_seconds
        idle = visited.past.target == 0
        schema = resource.database.schema
        self._observatory.watch(key, Target(credentials.dsn, schema, question, period, idle))
        view = self._observatory.view(key)
        if view is not None:
            self._rivals.prove(key, isinstance(view, Observation))
        return view

    def _retain(
        self,
        resource: WorkflowNamespace,
        credentials: Credentials,
        visited: _Visited,
        standing: Standing,
    ) -> None:
        """Keep the pruner informed of what to delete."""
        key, dsn, seconds = resource.key, credentials.dsn, resource.retention_seconds
        if dsn is None or not seconds or resource.paused or standing is not Standing.ACTS:
            self._pruner.forget(key)
            return
        where = (dsn, resource.database.schema, resource.namespace_id, seconds)
        self._pruner.keep(key, Retention(*where, unproven_build(resource, visited.past)))

    async def _claim(self, resource: WorkflowNamespace, credentials: Credentials) -> None:
        """Say what the resource claims, once it is known what all that may be its rivals do."""
        if not self._rivals.knows(resource.key):
            # An older one may be visited later; until all are known, nobody can tell who acts.
            async with self._census:
                elders = self._unknown_elders(resource)
                for first in range(0, len(elders), SECRETS_AT_ONCE):
                    some = elders[first : first + SECRETS_AT_ONCE]
                    await asyncio.gather(*map(self._take_claim, some))
        self._rivals.claim(resource, _identity(resource, credentials), credentials.dsn)

    def _unknown_elders(self, resource: WorkflowNamespace) -> list[WorkflowNamespace]:
        unknown = (key for key in self._store.resources() if not self._rivals.knows(key))
        elders = (_parsed(self._store.resource(key)) for key in unknown)
        return [
            elder
            for elder in elders
            if elder is not None
            and elder.rank < resource.rank
            and elder.namespace_id == resource.namespace_id
            and elder.database.schema == resource.database.schema
        ]

    async def _take_claim(self, resource: WorkflowNamespace) -> None:
        credentials = await self._credentials.read(resource, False)
        if self._store.resource(resource.key) is not None:  # not deleted in the meantime
            self._rivals.claim(resource, _identity(resource, credentials), credentials.dsn)

    async def _route(self, resource: WorkflowNamespace, observed: Observed, decided: Plan) -> None:
        """Have carried out in the database what the rollout decided, beside the visits."""
        view = observed.database
        if decided.actions:
            dsn = (await self._credentials.read(resource, False)).dsn
            if dsn is not None:
                place = (resource.database.schema, resource.namespace_id)
                self._router.start(resource.key, decided.actions, dsn, *place)
        elif isinstance(view, Observation) and view.serial > self._router.acted(resource.key):
            self._router.settle(resource.key)

    async def _report(
        self,
        resource: WorkflowNamespace,
        visited: _Visited,
        observed: Observed,
        decided: Plan,
        faults: Sequence[Fault],
    ) -> None:
        template = build_of(resource)
        wanted = template if resource.rollout.is_pinned else None
        deployments = self._store.deployments(resource.key, resource.uid, wanted)
        scaled = decided.scale_to is not None and decided.scale_to != decided.was
        facts = Facts(
            resource=resource,
            database=observed.database,
            pruning=self._pruner.last(resource.key),
            deployment=next(iter(deployments), None),
            pods=observed.pods,
            desired=sum(map(replicas_of, deployments)),
            limit=decided.next.limit,
            faults=faults,
            conflict=observed.conflict,
            installation=self._installation,
            scaled=scaled,
            phases=self._phases(resource.key, visited, decided),
            fleets=self._store.fleets(resource.key, resource.uid),
            template=template,
            usage=await self._usages.observe(observed, template),
            is_fresh=not visited.has_looked,
        )
        visited.has_looked |= observed.database is not None
        status = status_of(facts, datetime.now(UTC))
        self._metrics.report(resource.key, fleet_report(facts, decided, status))
        if worth_writing(status, resource.status, time.monotonic() - visited.written_at):
            await self._write(resource, status)
            visited.written_at = time.monotonic()
        await self._tell(resource, decided, status, scaled)

    def _phases(self, key: Key, visited: _Visited, decided: Plan) -> Phases:
        """Where each build stands; what is decided and not yet written is not so yet."""
        if not self._router.is_busy(key):
            visited.phases = decided.phases
        before = {b: phase for b, phase in visited.phases.items() if b in decided.phases}
        return obstructed({**decided.phases, **before}, self._router.problem(key))

    async def _write(self, resource: WorkflowNamespace, status: dict[str, Any]) -> None:
        try:
            written = await self._cluster.write_status(resource.key, status)
        except ClusterError as error:
            if error.status != 404:  # deleted in the meantime
                raise
        else:
            self._store.put(kinds.WORKFLOW_NAMESPACE, written)

    async def _tell(
        self,
        resource: WorkflowNamespace,
        decided: Plan,
        status: dict[str, Any],
        scaled: bool,
    ) -> None:
        for each in announcements(resource, decided, status, scaled=scaled):
            await self._recorder.tell(resource, each.kind, each.reason, each.message)


def _parsed(raw: Mapping[str, Any] | None) -> WorkflowNamespace | None:
    """The resource; None when it is deleted, or from before the schema."""
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    try:
        return WorkflowNamespace.parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The next edit of such an object will be refused.
        name = raw["metadata"].get("name")
        logger.error("%s is not a WorkflowNamespace: %s", name, type(error).__name__)
        return None


def _identity(resource: WorkflowNamespace, credentials: Credentials) -> Identity | None:
    dsn = credentials.dsn
    return None if dsn is None else (dsn.place, resource.database.schema, resource.namespace_id)
