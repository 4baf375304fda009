"""How full the pods of a fleet are, where the cluster has a metrics server. One look a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import OWNER_LABEL
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.decide.observation import Observation
from openworkflow_operator.decide.planner import Observed
from openworkflow_operator.decide.pods import ready_of
from openworkflow_operator.decide.usage import PodUsage, Usage, remembered
from openworkflow_operator.desired.drift import amount_of

PERIOD_SECONDS: Final = 60.0
#: A cluster without a metrics server, or a Role that does not let it be asked.
ABSENT_SECONDS: Final = 600.0
#: A metrics server that does not answer must not hold up the visits: nobody needs it.
PATIENCE_SECONDS: Final = 2.0


class Usages:
    """What was seen of each fleet; a new operator goes on from what its status says."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[Key, Usage] = {}
        self._next: dict[Key, float] = {}
        self._absent_until = 0.0

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._next.pop(key, None)
        self._known.pop(key, None)

    async def observe(self, observed: Observed, template: str) -> Usage:
        """How full the pods of the template were, with what is to be seen of them now."""
        resource, view = observed.resource, observed.database
        known = self._known.get(resource.key)
        if known is None or known.template != template:
            known = remembered(resource.status, template)
        ready = ready_of(observed.pods, template if resource.rollout.is_pinned else None)
        if isinstance(view, Observation) and (used := await self._read(resource.key, ready)):
            held = sum(view.busy.get(name, 0) for name in ready)
            known = known.seen(held / (len(ready) * resource.worker.concurrency), used)
        self._known[resource.key] = known
        return known

    async def _read(self, key: Key, ready: Collection[str]) -> list[PodUsage]:
        """What the ready pods use; nothing when it is not time to ask, or nobody tells."""
        now = time.monotonic()
        if not ready or now < max(self._absent_until, self._next.get(key, 0.0)):
            return []
        self._next[key] = now + PERIOD_SECONDS
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found, _ = await self._cluster.list(
                    kinds.POD_METRICS, key.namespace, f"{OWNER_LABEL}={key.name}"
                )
        except (ClusterError, TimeoutError) as error:
            is_absent = isinstance(error, ClusterError) and error.status in (403, 404)
            self._absent_until = now + (ABSENT_SECONDS if is_absent else PERIOD_SECONDS)
            return []
        named = (each for each in found if each["metadata"]["name"] in ready)
        return [usage for usage in map(_usage, named) if usage is not None]


def _usage(item: Any) -> PodUsage | None:
    """The sum over its containers; None for what cannot be read."""
    try:
        return _sum_of(item)
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        return None  # not everything that serves this API is the metrics server


def _sum_of(item: Any) -> PodUsage | None:
    cpu, memory = 0.0, 0.0
    for container in item.get("containers") or ():
        used = container.get("usage") or {}
        amounts = [amount_of(used.get(name)) for name in ("cpu", "memory")]
        if amounts[0] is None or amounts[1] is None:
            return None
        cpu, memory = cpu + float(amounts[0]), memory + float(amounts[1])
    return PodUsage(cpu, int(memory)) if memory else None
