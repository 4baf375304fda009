"""How many worker pods a fleet needs: a pure function of counts, limits and its own memory.

The arithmetic is in slots (a pod has `concurrency` of them):

    k      = max(1, (target - age of the oldest due run) / service time)
    slots  = running + (due + waking) / k + ½·√running
    wanted = ceil(slots / concurrency), within the limits

Up at once and straight to the number that has work; for headroom alone once that was wanted for as
long as a pod takes to start. Down to the most that was wanted for so long within the window, idle
pods only; to zero when two observations in a row saw nothing to do, and none in the window wanted
a pod. Without an observation the
fleet stays as it is: unknown is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

#: Headroom for random arrivals, in units of √running (square-root staffing).
HEADROOM: Final = 0.5
#: What is wanted for less than that within the window is over before a pod could help: noise.
SUSTAINED_SECONDS: Final = 20.0
#: Weight of the newest sample in the estimate of the service time.
SMOOTHING: Final = 0.3
#: How often nothing must have been seen before the last pod goes.
EMPTY_OBSERVATIONS_BEFORE_ZERO: Final = 2
#: The most due runs that one look counts: an index scan of a millisecond, however many there are.
MOST_COUNTED: Final = 5_000
#: Slots may idle beside old runs this long (pods start, claims race) before that is a fault.
STUCK_AFTER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner allows and wants. Durations are seconds."""

    min_replicas: int
    max_replicas: int
    concurrency: int
    target_latency: float
    scale_in_delay: float


@dataclass(frozen=True, slots=True)
class Demand:
    """One successful look at the runs of a namespace."""

    due: int
    """Pending runs whose time has come, counted up to what can change the decision."""
    oldest_due_age: float
    """Seconds that the oldest of them waits; 0 without any."""
    running: int
    """Runs that a worker holds, those with an expired lease included: they too need a slot."""
    saturated: bool = False
    """More runs are due than were counted."""
    waking: int = 0
    """Sleeping runs whose time comes within the activation lead."""
    service_seconds: float | None = None
    """How long a run holds its slot; None when nothing tells."""
    unserved: int = 0
    """Further due runs, which no worker says it serves: one pod may, and more would not help."""
    oldest_unserved_age: float = 0.0
    """Seconds that the oldest of those waits, or longer than all others; 0 without any."""
    unserved_names: tuple[str, ...] = ()
    """Some of their workflows, to be told to people."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pods at the moment of the decision."""

    replicas: int
    ready: int
    busy: int = 0
    """Pods that hold at least one run."""
    blocked: bool = False
    """New pods do not start (unschedulable, image not pulled): more of them would not help."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision leaves for the next one. Losing it costs one scale-in window, no more."""

    wanted: Sequence[tuple[float, int]] = ()
    """(since when, wanted) within the window, oldest first, an entry at each change."""
    empty_observations: int = 0
    service_seconds: float | None = None
    stuck_since: float | None = None
    seeded: bool = False


class Limit(StrEnum):
    """Why the fleet is not what the demand asks for; the values are condition reasons."""

    NONE = "WithinLimits"
    MAX_REPLICAS = "MaxReplicas"
    PODS_BLOCKED = "PodsUnschedulable"
    RUNS_NOT_PICKED_UP = "RunsNotPickedUp"


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of pods from now on, and what the demand alone would take."""

    replicas: int
    wanted: int
    limit: Limit = Limit.NONE


def decide(
    policy: Policy, fleet: Fleet, demand: Demand | None, memory: Memory, now: float
) -> tuple[Decision, Memory]:
    """Return the next number of pods and the memory to pass next time.

    `now` is any clock in seconds that never goes back. `demand` is None when the database could
    not be read: then the fleet stays, except that it grows to the owner's minimum.
    """
    memory = _seed(memory, fleet, now)
    if demand is None:
        held = max(fleet.replicas, policy.min_replicas)
        window = _window(memory.wanted, policy, held, now)
        return Decision(replicas=held, wanted=held), replace(memory, wanted=window)
    memory = _learn(memory, policy, fleet, demand, now)
    needed = pods_needed(policy, demand, memory.service_seconds)
    if demand.saturated:  # nobody knows how many there are: double until the count tells again
        needed = max(needed, 2 * fleet.replicas)
    wanted = min(max(needed, policy.min_replicas), policy.max_replicas)
    memory = replace(memory, wanted=_window(memory.wanted, policy, wanted, now))
    if wanted > fleet.replicas:
        limit = _obstacle(fleet, memory, now)
        grown = max(fleet.replicas, policy.min_replicas)
        if limit is Limit.NONE:
            grown = max(grown, min(wanted, _growth(policy, fleet, demand, memory, now)))
        if limit is Limit.NONE and needed > policy.max_replicas:
            limit = Limit.MAX_REPLICAS
        return Decision(replicas=grown, wanted=needed, limit=limit), memory
    limit = Limit.MAX_REPLICAS if needed > policy.max_replicas else Limit.NONE
    return Decision(_shrunk(policy, fleet, memory, now), needed, limit), memory


def pods_needed(
    policy: Policy, demand: Demand, service_seconds: float | None, headroom: float = HEADROOM
) -> int:
    """Pods that the demand takes, without any limit."""
    waiting = demand.due + demand.waking
    slots = demand.running + waiting / backlog_per_slot(policy, demand, service_seconds)
    slots += headroom * math.sqrt(demand.running)
    return max(math.ceil(slots / policy.concurrency), min(1, demand.unserved))


def backlog_per_slot(policy: Policy, demand: Demand, service_seconds: float | None) -> float:
    """How many waiting runs one slot can still start in time, at least one.

    It falls while the oldest run ages. Without that term the fleet would shrink along with the
    backlog, and its tail would miss the target.
    """
    if service_seconds is None:
        return 1.0
    left = policy.target_latency - demand.oldest_due_age
    return max(1.0, left / max(service_seconds, 0.001))


def observation_cap(policy: Policy, service_seconds: float | None) -> int:
    """How many due runs to count: one more than the largest fleet could start in time.

    Where that would be too many to count at every tick, the count stops at `MOST_COUNTED` and the
    demand is `saturated`.
    """
    slots = policy.max_replicas * policy.concurrency
    fresh = Demand(due=0, oldest_due_age=0.0, running=0)
    return min(
        math.ceil(slots * backlog_per_slot(policy, fresh, service_seconds)) + 1, MOST_COUNTED
    )


def _seed(memory: Memory, fleet: Fleet, now: float) -> Memory:
    """After a restart of the operator the window starts full: with the pods that are there."""
    if memory.seeded:
        return memory
    return replace(memory, wanted=((now - SUSTAINED_SECONDS, fleet.replicas),), seeded=True)


def _learn(memory: Memory, policy: Policy, fleet: Fleet, demand: Demand, now: float) -> Memory:
    empty = not (demand.due or demand.running or demand.waking or demand.unserved)
    return replace(
        memory,
        empty_observations=memory.empty_observations + 1 if empty else 0,
        service_seconds=_smoothed(memory.service_seconds, demand.service_seconds),
        stuck_since=_stuck_since(memory, policy, fleet, demand, now),
    )


def _smoothed(old: float | None, sample: float | None) -> float | None:
    if old is None or sample is None:
        return old if sample is None else sample
    return old + SMOOTHING * (sample - old)


def _stuck_since(
    memory: Memory, policy: Policy, fleet: Fleet, demand: Demand, now: float
) -> float | None:
    """Since when slots idle while runs are far too old: then capacity is not what is missing."""
    idle = fleet.ready > 0 and demand.running < 0.5 * fleet.ready * policy.concurrency
    # Those that nobody serves count only alone: they must not keep the fleet from growing for more.
    age = demand.oldest_due_age if demand.due else demand.oldest_unserved_age
    late = age > 2 * policy.target_latency
    if not (idle and late):
        return None
    return now if memory.stuck_since is None else memory.stuck_since


def _window(
    wanted: Sequence[tuple[float, int]], policy: Policy, newest: int, now: float
) -> tuple[tuple[float, int], ...]:
    """Add the newest, and drop what was over before the window began."""
    kept = tuple(entry for entry, seconds in _spans(wanted, policy, now) if seconds > 0)
    return kept if kept and kept[-1][1] == newest else (*kept, (now, newest))


def _spans(
    wanted: Sequence[tuple[float, int]], policy: Policy, now: float
) -> Iterator[tuple[tuple[float, int], float]]:
    """Each entry, and the seconds within the window for which it was the newest."""
    since = now - policy.scale_in_delay
    for entry, (end, _) in zip(wanted, [*wanted[1:], (now, 0)], strict=False):
        yield entry, end - max(entry[0], since)


def _sustained(policy: Policy, memory: Memory, now: float) -> int:
    """The most that was wanted for `SUSTAINED_SECONDS` in total within the window.

    A window that is shorter than that has its maximum.
    """
    spans = sorted(
        ((wanted, seconds) for (_, wanted), seconds in _spans(memory.wanted, policy, now)),
        reverse=True,
    )
    enough = min(SUSTAINED_SECONDS, policy.scale_in_delay)
    total = 0.0
    for wanted, seconds in spans:
        total += seconds
        if total >= enough:
            return wanted
    return spans[0][0]


def _obstacle(fleet: Fleet, memory: Memory, now: float) -> Limit:
    if fleet.blocked:
        return Limit.PODS_BLOCKED
    if memory.stuck_since is not None and now - memory.stuck_since >= STUCK_AFTER_SECONDS:
        return Limit.RUNS_NOT_PICKED_UP
    return Limit.NONE


def _growth(policy: Policy, fleet: Fleet, demand: Demand, memory: Memory, now: float) -> int:
    """How far to grow now: for work at once, for headroom once it was wanted for long enough."""
    if demand.saturated or fleet.replicas == 0:
        return policy.max_replicas
    urgent = pods_needed(policy, demand, memory.service_seconds, headroom=0.0)
    return max(urgent, _sustained(policy, memory, now))


def _shrunk(policy: Policy, fleet: Fleet, memory: Memory, now: float) -> int:
    """What the window wanted for long enough, not below busy pods.

    The last pod is not noise: the next run would wait for it to start. So it stays for the window
    after any work, and goes on no single look.
    """
    newest = memory.wanted[-1][1]
    floor = max(_sustained(policy, memory, now), newest, fleet.busy)
    worked = any(wanted for _, wanted in memory.wanted)
    if floor == 0 and (worked or memory.empty_observations < EMPTY_OBSERVATIONS_BEFORE_ZERO):
        floor = 1
    return min(fleet.replicas, max(floor, policy.min_replicas), policy.max_replicas)
