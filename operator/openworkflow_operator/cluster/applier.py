"""Carries out a plan in the cluster: objects, then ranks of pods, then their number."""

from __future__ import annotations

import logging

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import DELETION_COST_ANNOTATION, deployment_name, worker_name
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.decide.planner import Plan
from openworkflow_operator.decide.pods import Trouble, refusal_reason
from openworkflow_operator.desired.workload import build_of
from openworkflow_operator.report.metrics import Metrics

logger = logging.getLogger(__name__)


class Applier:
    """Changes the cluster, and takes what it answers into the store at once."""

    def __init__(self, cluster: Cluster, store: Store, metrics: Metrics) -> None:
        self._cluster, self._store, self._metrics = cluster, store, metrics

    async def apply(
        self, resource: WorkflowNamespace, decided: Plan
    ) -> tuple[Trouble | None, ClusterError | None]:
        """Carry out the plan; a refused object must not keep the others from being made."""
        refused: Trouble | None = None
        failure: ClusterError | None = None
        namespace = resource.key.namespace
        fleets = _fleets(resource, decided)
        for kind, manifest in (each for part in fleets.values() for each in part.apply):
            try:
                self._store.put(kind, await self._cluster.apply(kind, manifest))
            except ClusterError as error:
                failure = error
                if error.status in (400, 403, 422):
                    refused = refusal_reason(error.message)
                logger.warning("%s of %s was not applied: %s", kind.name, resource.key, error)
        for kind, obsolete in decided.delete:
            await self._cluster.delete(kind, namespace, obsolete)
        for name, part in fleets.items():
            await self._scale(resource.key, name, part)
        return refused, failure

    async def _scale(self, key: Key, name: str, part: Plan) -> None:
        """Rank the pods of a Deployment, and set their number."""
        for pod, cost in part.deletion_costs.items():
            try:
                annotation = {DELETION_COST_ANNOTATION: str(cost)}
                await self._cluster.annotate(kinds.POD, key.namespace, pod, annotation)
            except ClusterError as error:
                if error.status != 404:
                    raise
        child = Key(key.namespace, name)
        if part.scale_to is None or not self._store.knows(kinds.DEPLOYMENT, child):
            return
        self._store.scaled(child, await self._cluster.scale(*child, part.scale_to))
        if part.scale_to != part.was:
            direction = "up" if part.scale_to > part.was else "down"
            self._metrics.scale_operations.labels(*key, direction).inc()


def _fleets(resource: WorkflowNamespace, decided: Plan) -> dict[str, Plan]:
    """The plan of each Deployment by its name."""
    name = resource.key.name
    if not resource.rollout.is_pinned:
        return {worker_name(name): decided}
    own = {deployment_name(name, build_of(resource)): decided}
    return own | {deployment_name(name, build): part for build, part in decided.others.items()}
