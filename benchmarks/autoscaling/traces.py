"""The loads of the comparison: two hours each, the same for every controller."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.autoscaling.cluster import Run

HOURS = 2
UNTIL = HOURS * 3600.0


@dataclass(frozen=True, slots=True)
class Trace:
    """A load and what its owner would configure."""

    name: str
    runs: tuple[Run, ...]
    slots: int = 4
    max_replicas: int = 50
    target_latency: float = 30.0
    outage: tuple[float, float] | None = None
    keda_backlog_per_slot: float = 1.0
    """What a careful owner would tell KEDA: target latency / service time, when it is known."""


def all_traces(seed: int = 1) -> list[Trace]:
    """Every trace, made from one seed."""
    make = random.Random(seed)
    return [
        Trace("steady", tuple(_poisson(make, lambda _: 2.0, mean=5.0))),
        Trace("diurnal", tuple(_poisson(make, _diurnal, mean=4.0))),
        Trace("burst", tuple(_bursts(make))),
        Trace("herd of timers", tuple(_timers(make))),
        Trace("long beside small", tuple(_long_beside_small(make))),
        Trace(
            "huge backlog",
            tuple(Run(60.0, 1.0) for _ in range(20_000)),
            target_latency=300.0,
            keda_backlog_per_slot=300.0,
        ),
        Trace("database outage", tuple(_outage(make)), outage=(2400.0, 3000.0)),
    ]


def _diurnal(now: float) -> float:
    """From nothing to 20 runs a second and back."""
    return 10.0 * (1.0 - math.cos(2.0 * math.pi * now / UNTIL))


def _poisson(make: random.Random, rate: Callable[[float], float], mean: float) -> Iterator[Run]:
    """Random arrivals by thinning; exponential durations."""
    now, most = 0.0, 20.0
    while (now := now + make.expovariate(most)) < UNTIL - 300:
        if make.random() < rate(now) / most:
            yield Run(now, make.expovariate(1.0 / mean))


def _bursts(make: random.Random) -> Iterator[Run]:
    for start in (607.0, 4213.0):
        for _ in range(500):
            yield Run(start + make.uniform(0, 1), make.expovariate(1.0 / 5.0))


def _timers(make: random.Random) -> Iterator[Run]:
    """Every ten minutes 150 runs wake from a sleep at the same instant."""
    for wake in range(600, int(UNTIL) - 300, 600):
        for _ in range(150):
            yield Run(wake + 3.0, make.uniform(4, 6), known_at=wake - 500.0)


def _long_beside_small(make: random.Random) -> Iterator[Run]:
    runs = list(_poisson(make, lambda _: 0.5, mean=2.0))
    runs += [Run(make.uniform(0, 4800), make.uniform(1500, 2400)) for _ in range(40)]
    yield from sorted(runs, key=lambda run: run.available_at)


def _outage(make: random.Random) -> Iterator[Run]:
    """Clients retry while the database is away, so their runs arrive all at once after it."""
    for run in _poisson(make, lambda _: 2.0, mean=5.0):
        inside = 2400.0 <= run.available_at < 3000.0
        yield Run(3000.0 + make.uniform(0, 2), run.seconds) if inside else run
