"""A cluster in virtual time: runs arrive, pods start, claim, drain and die; a controller decides.

The model is the same for every controller: pods take a random time to start, claim in the order of
`available_at`, and on SIGTERM finish what they hold within the drain time or hand it back, which
loses the step in progress. Nothing acts instantly: a decision reaches the pods after `ACTUATION`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

COLD_START_SECONDS = (6.0, 14.0)
ACTUATION_SECONDS = 0.2
DRAIN_SECONDS = 120.0
STEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it will happen. `known_at` < `available_at` for one that sleeps before."""

    available_at: float
    seconds: float
    known_at: float | None = None


@dataclass(slots=True, eq=False)
class Pod:
    """One worker pod."""

    slots: int
    created_at: float
    ready: bool = False
    draining: bool = False
    gone_at: float | None = None
    holds: dict[int, float] = field(default_factory=dict)
    """Number of the run → when it was claimed."""

    @property
    def free(self) -> int:
        """Slots that can claim."""
        return self.slots - len(self.holds) if self.ready and not self.draining else 0


@dataclass(slots=True)
class Outcome:
    """What a controller made of a trace."""

    waits: list[float] = field(default_factory=list)
    pod_seconds: float = 0.0
    scale_operations: int = 0
    signalled_slots: int = 0
    """Busy slots whose pod got SIGTERM."""
    interrupted_slots: int = 0
    """Slots whose runs could not finish while draining."""
    redone_seconds: float = 0.0
    timeline: list[tuple[float, int, int]] = field(default_factory=list)
    """(when, pods asked for, due runs)"""


class Controller(Protocol):
    """What decides the number of pods."""

    period: float

    def tick(self, cluster: Cluster) -> int | None:
        """The new number of pods, or None to leave it."""


class Cluster:
    """The state of one simulation, and what a controller may look at."""

    def __init__(self, runs: Sequence[Run], slots: int, outage: tuple[float, float] | None) -> None:
        self.now = 0.0
        self.replicas = 0
        self.slots_per_pod = slots
        self.pods: list[Pod] = []
        self.queue: deque[int] = deque()
        self.sleeping: list[tuple[float, int]] = []
        self.outcome = Outcome()
        self._runs = runs
        self._random = random.Random(7)
        self._outage = outage
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._left = [run.seconds for run in runs]
        self._started: set[int] = set()

    @property
    def database_is_down(self) -> bool:
        """Whether nothing can be claimed, finished or counted."""
        return self._outage is not None and self._outage[0] <= self.now < self._outage[1]

    @property
    def due(self) -> int:
        """Runs that wait."""
        return len(self.queue)

    @property
    def running(self) -> int:
        """Runs that a pod holds, also one that drains."""
        return sum(len(pod.holds) for pod in self.pods)

    @property
    def oldest_due_age(self) -> float:
        """Seconds the first in line waits."""
        return self.now - self._runs[self.queue[0]].available_at if self.queue else 0.0

    @property
    def active(self) -> list[Pod]:
        """Pods that count as replicas."""
        return [pod for pod in self.pods if not pod.draining]

    def waking_within(self, lead: float) -> int:
        """Sleeping runs whose time comes within `lead` seconds."""
        return sum(1 for at, _ in self.sleeping if at <= self.now + lead)

    def run_ages(self) -> list[float]:
        """How long the runs in progress have been held."""
        return [self.now - at for pod in self.pods for at in pod.holds.values()]

    def simulate(self, controller: Controller, until: float, idle_first: bool) -> Outcome:
        """Run to `until` and return what happened."""
        for number, run in enumerate(self._runs):
            self._schedule_arrival(number, run)
        self._tick(controller, idle_first)
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until
        self.outcome.waits += [until - self._runs[number].available_at for number in self.queue]
        for pod in self.pods:
            self.outcome.pod_seconds += until - pod.created_at
        return self.outcome

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def _schedule_arrival(self, number: int, run: Run) -> None:
        def known() -> None:
            heapq.heappush(self.sleeping, (run.available_at, number))

        def due() -> None:
            if self.sleeping and self.sleeping[0][1] == number:
                heapq.heappop(self.sleeping)
            self.queue.append(number)
            self._claim()

        if run.known_at is not None:
            self._at(run.known_at, known)
        self._at(run.available_at, due)

    def _tick(self, controller: Controller, idle_first: bool) -> None:
        wanted = controller.tick(self)
        if wanted is not None and wanted != self.replicas:
            self.replicas = wanted
            self.outcome.scale_operations += 1
            # The victims are the idle ones of this moment; a claim may still come in between.
            ranked = self._ranked(idle_first)
            self._at(self.now + ACTUATION_SECONDS, lambda: self._scale_to(wanted, ranked))
        self.outcome.timeline.append((self.now, self.replicas, self.due))
        self._at(self.now + controller.period, lambda: self._tick(controller, idle_first))

    def _ranked(self, idle_first: bool) -> list[Pod]:
        """The order in which the ReplicaSet would delete: not ready, then the lowest cost."""
        pods = self.active
        self._random.shuffle(pods)
        pods.sort(key=lambda pod: (pod.ready, len(pod.holds) if idle_first else 0))
        return pods

    def _scale_to(self, wanted: int, ranked: list[Pod]) -> None:
        active = len(self.active)
        for _ in range(wanted - active):
            self._create_pod()
        for pod in ranked[: max(0, active - wanted)]:
            self._terminate(pod)

    def _create_pod(self) -> None:
        pod = Pod(self.slots_per_pod, self.now)
        self.pods.append(pod)

        def ready() -> None:
            if not pod.draining:
                pod.ready = True
                self._claim()

        self._at(self.now + self._random.uniform(*COLD_START_SECONDS), ready)

    def _terminate(self, pod: Pod) -> None:
        pod.draining = True
        self.outcome.signalled_slots += len(pod.holds)
        if not pod.holds:
            self._remove(pod)
            return
        self._at(self.now + DRAIN_SECONDS, lambda: self._hand_back(pod))

    def _hand_back(self, pod: Pod) -> None:
        for number, claimed_at in pod.holds.items():
            self.outcome.interrupted_slots += 1
            done = self.now - claimed_at
            lost = done % STEP_SECONDS
            self.outcome.redone_seconds += lost
            self._left[number] -= done - lost
            self.queue.appendleft(number)
        pod.holds.clear()
        self._remove(pod)
        self._claim()

    def _remove(self, pod: Pod) -> None:
        if pod in self.pods:
            self.pods.remove(pod)
            self.outcome.pod_seconds += self.now - pod.created_at

    def _claim(self) -> None:
        if self.database_is_down:
            return
        while self.queue:
            free = [pod for pod in self.pods if pod.free]
            if not free:
                return
            self._random.shuffle(free)
            for pod in free:
                if not self.queue:
                    return
                self._start(pod, self.queue.popleft())

    def _start(self, pod: Pod, number: int) -> None:
        if number not in self._started:
            self._started.add(number)
            self.outcome.waits.append(self.now - self._runs[number].available_at)
        pod.holds[number] = self.now
        claimed_at = self.now

        def finish() -> None:
            if pod.holds.get(number) != claimed_at:
                return
            if self.database_is_down and self._outage is not None:
                self._at(self._outage[1], finish)
                return
            del pod.holds[number]
            if pod.draining and not pod.holds:
                self._remove(pod)
            self._claim()

        self._at(self.now + self._left[number], finish)
