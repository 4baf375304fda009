"""Why a pod that has a node has no container: only the kubelet's Events tell of its volumes.

They are asked for where a pod is still without one at a later visit, one pod of a fleet each time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.decide.pods import Pod, Trouble, words_of

#: Most pods have their container by then, and cost no question.
PATIENCE_SECONDS: Final = 4.0
#: The kubelet waits for caches and disks; what fails so often will not come by itself.
FAILURES_BEFORE_TROUBLE: Final = 4
_FIELDS: Final = "involvedObject.kind=Pod,involvedObject.name={},reason=FailedMount"


class Mounts:
    """What is known of the volumes of pods that have no container yet."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waits: dict[Key, dict[str, float]] = {}

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._waits.pop(key, None)

    async def diagnose(self, key: Key, pods: Sequence[Pod]) -> list[Pod]:
        """The pods, with the trouble of those whose volumes cannot be mounted."""
        now = time.monotonic()
        before = self._waits.get(key, {})
        waits = {pod.uid: before.get(pod.uid, now) for pod in pods if pod.is_creating}
        if not waits:
            self._waits.pop(key, None)
            return list(pods)
        self._waits[key] = waits
        long = [p for p in pods if p.is_creating and now - waits[p.uid] >= PATIENCE_SECONDS]
        first = min(long, key=lambda pod: (waits[pod.uid], pod.name), default=None)
        if first is None:
            return list(pods)
        trouble, words = await self._ask(key.namespace, first)
        if trouble is None:
            return list(pods)
        # Those of one Deployment have the same volumes.
        ill = {pod.uid for pod in long if pod.revision == first.revision}
        return [replace(p, trouble=trouble, words=words) if p.uid in ill else p for p in pods]

    async def _ask(self, namespace: str, pod: Pod) -> tuple[Trouble | None, str]:
        try:
            found, _ = await self._cluster.list(
                kinds.EVENT, namespace, fields=_FIELDS.format(pod.name)
            )
        except ClusterError:
            return None, ""  # an older Role; the pod then only starts
        own = [e for e in found if (e.get("involvedObject") or {}).get("uid") == pod.uid]
        for event in sorted(own, key=_count, reverse=True):
            words = words_of(event.get("message"))
            if "not found" in words or "non-existent" in words:
                return Trouble.CONFIGURATION, words
            if _count(event) >= FAILURES_BEFORE_TROUBLE:
                return Trouble.VOLUME_NOT_MOUNTED, words
        return None, ""


def _count(event: Any) -> int:
    series = event.get("series") or {}
    return int(event.get("count") or series.get("count") or 1)
