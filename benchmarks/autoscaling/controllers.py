"""The controllers that are compared: the operator's own function, and KEDA with the HPA.

KEDA and the HPA follow their documentation and the algorithm of the Kubernetes 1.36 controller:
KEDA's PostgreSQL trigger feeds the HPA an `AverageValue`, so the wanted number is the value of the
query divided by its target, with no term for the pods there are; KEDA itself only moves 0 ↔ 1.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from benchmarks.autoscaling.cluster import Cluster
from openworkflow_operator.decide.scaling import (
    Demand,
    Fleet,
    Memory,
    Policy,
    decide,
    observation_cap,
)

HPA_SYNC_SECONDS = 15.0
HPA_TOLERANCE = 0.1


@dataclass
class Operator:
    """The real scaling function, fed with what the observation SQL would return."""

    policy: Policy
    lead: float = 20.0
    period: float = 5.0
    knows_service_time: bool = True
    memory: Memory = field(default_factory=Memory)

    def tick(self, cluster: Cluster) -> int | None:
        """Observe, decide, remember."""
        fleet = Fleet(
            replicas=cluster.replicas,
            ready=sum(1 for pod in cluster.active if pod.ready),
            busy=sum(1 for pod in cluster.active if pod.holds),
        )
        demand = None if cluster.database_is_down else self._observe(cluster)
        decision, self.memory = decide(self.policy, fleet, demand, self.memory, cluster.now)
        return decision.replicas

    def _observe(self, cluster: Cluster) -> Demand:
        cap = observation_cap(self.policy, self.memory.service_seconds)
        ages = cluster.run_ages()[:100]
        estimate = 2 * sum(ages) / len(ages) if ages and self.knows_service_time else None
        return Demand(
            due=min(cluster.due, cap),
            saturated=cluster.due >= cap,
            oldest_due_age=cluster.oldest_due_age,
            running=cluster.running,
            waking=min(cluster.waking_within(self.lead), cap),
            service_seconds=estimate,
        )


@dataclass
class Keda:
    """KEDA's 0 ↔ 1 and the HPA's 1 ↔ N. Durations are seconds."""

    target: float
    max_replicas: int
    counts_running: bool = True
    polling: float = 30.0
    cooldown: float = 300.0
    down_window: float = 300.0
    limits_growth: bool = True
    period: float = 1.0
    _last_active: float = 0.0
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)

    def tick(self, cluster: Cluster) -> int | None:
        """Both loops at their own period; an error of the query changes nothing."""
        if cluster.database_is_down:
            return None
        value = cluster.due + (cluster.running if self.counts_running else 0)
        replicas = cluster.replicas
        if cluster.now % self.polling < self.period:
            replicas = self._activate(value, replicas, cluster.now)
        if replicas > 0 and cluster.now % HPA_SYNC_SECONDS < self.period:
            replicas = self._hpa(value, replicas, cluster)
        return replicas

    def _activate(self, value: int, replicas: int, now: float) -> int:
        if value > 0:
            self._last_active = now
            return max(replicas, 1)
        return 0 if now - self._last_active >= self.cooldown else replicas

    def _hpa(self, value: int, replicas: int, cluster: Cluster) -> int:
        ratio = value / (self.target * replicas)
        within = abs(ratio - 1.0) <= HPA_TOLERANCE
        wanted = replicas if within else math.ceil(value / self.target)
        self._recommended.append((cluster.now, wanted))
        while self._recommended[0][0] < cluster.now - self.down_window:
            self._recommended.popleft()
        wanted = max(recommended for _, recommended in self._recommended)
        if self.limits_growth:
            wanted = min(wanted, max(2 * replicas, 4))
        return max(1, min(wanted, self.max_replicas))


def keda_pending_only(slots: int, max_replicas: int) -> Keda:
    """The defaults, and the query of most examples: it counts what waits."""
    return Keda(target=slots, max_replicas=max_replicas, counts_running=False)


def keda_defaults(slots: int, max_replicas: int) -> Keda:
    """The defaults, with a query that also counts what runs."""
    return Keda(target=slots, max_replicas=max_replicas)


def keda_tuned(slots: int, max_replicas: int, per_slot: float = 1.0) -> Keda:
    """Fast polls, no limit on growth, a window of two minutes; `per_slot` backlog is acceptable."""
    return Keda(
        target=slots * per_slot,
        max_replicas=max_replicas,
        polling=5.0,
        cooldown=120.0,
        down_window=120.0,
        limits_growth=False,
    )
