"""Builds whose Deployment is there and is not known: it has lost the label by which it is watched.

Nobody else knows how to make its pods, so its runs would wait forever. It gets its labels back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import BUILD_LABEL, OWNER_LABEL, deployment_name
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.desired.resources import is_owned

logger = logging.getLogger(__name__)

#: A build whose Deployment somebody deleted may have runs for months.
PERIOD_SECONDS: Final = 300.0
#: At one visit, since each costs a request.
MOST_AT_ONCE: Final = 10
#: And then none for so long, since it is the tenant's database that names the builds.
PAUSE_SECONDS: Final = 10.0


class Strays:
    """When each build that has no Deployment was last looked for."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster, self._store = cluster, store
        self._sought: dict[Key, dict[str, float]] = {}
        self._next: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._sought.pop(key, None)
        self._next.pop(key, None)

    async def bring_back(self, resource: WorkflowNamespace, builds: Collection[str]) -> None:
        """Take in the Deployments of those of these builds that have one."""
        now, known = time.monotonic(), self._store.fleets(resource.key, resource.uid)
        if now < self._next.get(resource.key, now):
            return
        before = self._sought.get(resource.key, {})
        # Also of those that were found: a policy may take the label from them each time.
        sought = {build: before[build] for build in builds if build in before}
        missing = sorted(set(builds) - known.keys(), key=lambda b: (sought.get(b, 0.0), b))
        due = [b for b in missing if now - sought.get(b, -PERIOD_SECONDS) >= PERIOD_SECONDS]
        # Known before anything is asked: a visit may be given up that waits for an answer.
        self._sought[resource.key], self._next[resource.key] = sought, now
        for build in due[:MOST_AT_ONCE]:
            sought[build], self._next[resource.key] = now, now + PAUSE_SECONDS
            try:
                await self._seek(resource, build)
            except ClusterError as error:
                line = "the Deployment of build %s of %s was not looked for: %s"
                logger.warning(line, build, resource.key, error)
                if not 400 <= error.status < 500:  # nor would the next one have an answer
                    sought[build] = now - PERIOD_SECONDS + PAUSE_SECONDS
                    return

    async def _seek(self, resource: WorkflowNamespace, build: str) -> None:
        namespace, name = resource.key.namespace, deployment_name(resource.key.name, build)
        found = await self._cluster.find(kinds.DEPLOYMENT, namespace, name)
        if found is None or not is_owned(found, resource.uid) or _is_leaving(found):
            return
        labels = {OWNER_LABEL: resource.key.name, BUILD_LABEL: build}
        body = {"metadata": {"uid": found["metadata"]["uid"], "labels": labels}}
        labelled = await self._cluster.patch(kinds.DEPLOYMENT, namespace, name, body)
        logger.warning("Deployment %s had lost the labels by which it is known", name)
        self._store.put(kinds.DEPLOYMENT, labelled)


def _is_leaving(found: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in found["metadata"]
