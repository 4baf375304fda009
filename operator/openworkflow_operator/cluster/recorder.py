"""Kubernetes Events about a resource: one per kind of news, counted when it repeats."""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import UTC, datetime
from typing import Final, Literal

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import API_VERSION, KIND, MANAGED_BY
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.cluster.client import Cluster, ClusterError

logger = logging.getLogger(__name__)

#: The same news is not told again within this time.
QUIET_SECONDS: Final = 60.0
#: So many of a resource and type at once, then one each time that this has passed: a fleet that
#: follows its runs up and down has news at every look, each with other numbers.
MOST_AT_ONCE: Final = 25
REST_SECONDS: Final = 10.0
_MOST_REMEMBERED: Final = 10_000


class Recorder:
    """Writes Events, which nobody waits for: one that cannot be written is only logged."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: dict[str, float] = {}
        self._spent: dict[tuple[str, str], float] = {}

    async def tell(
        self,
        resource: WorkflowNamespace,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Write the Event, unless it was just written."""
        identity = f"{resource.uid}/{reason}/{message}"
        name = f"{resource.key.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        now = time.monotonic()
        if now - self._told.get(name, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        if not self._may_tell(resource.uid, kind, now):
            logger.debug("an event about %s is one too many: %s", resource.key, message)
            return
        self._remember(name, now)
        try:
            await self._write(resource, name, kind, reason, message)
        except ClusterError as error:
            logger.warning("an event about %s was not written: %s", resource.key, error)

    async def _write(
        self, resource: WorkflowNamespace, name: str, kind: str, reason: str, message: str
    ) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = resource.key.namespace
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": resource.key.name,
                "namespace": namespace,
                "uid": resource.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": MANAGED_BY},
            "reportingComponent": MANAGED_BY,
        }
        try:
            await self._cluster.create(kinds.EVENT, namespace, event)
            return
        except ClusterError as error:
            if error.status != 409:
                raise
        known = await self._cluster.patch(kinds.EVENT, namespace, name, {"lastTimestamp": now})
        count = int(known.get("count") or 1) + 1
        await self._cluster.patch(kinds.EVENT, namespace, name, {"count": count})

    def _may_tell(self, uid: str, kind: str, now: float) -> bool:
        """Whether there is room; of a kind each, so that what is good hides no warning."""
        since = now - MOST_AT_ONCE * REST_SECONDS
        spent = max(self._spent.get((uid, kind), since), since) + REST_SECONDS
        if spent > now:
            return False
        if len(self._spent) >= _MOST_REMEMBERED:
            self._spent = {k: at for k, at in self._spent.items() if at > since}
        self._spent[uid, kind] = spent
        return True

    def _remember(self, name: str, now: float) -> None:
        if len(self._told) >= _MOST_REMEMBERED:
            self._told = {k: at for k, at in self._told.items() if now - at < QUIET_SECONDS}
        self._told[name] = now
