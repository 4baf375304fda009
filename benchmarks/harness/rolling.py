"""Percentiles of the last seconds, in bounded memory however many values there are."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

STEP = math.log(1.005)
"""A bucket holds values within half a per cent of one another: three significant figures."""
LEAST = 0.001


class Rolling:
    """Counts of values by their logarithm, a second by itself; times are seconds of any clock."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._seconds: deque[tuple[int, Counter[int]]] = deque()

    def add(self, value: float, now: float, times: int = 1) -> None:
        """A value was met, or as many as that."""
        if not self._seconds or self._seconds[-1][0] != int(now):
            self._seconds.append((int(now), Counter()))
            self._forget(now)
        self._seconds[-1][1][int(math.log(max(value, LEAST)) / STEP)] += times

    def percentiles(self, percents: Sequence[float], now: float) -> list[float] | None:
        """The values that so many per cent are not above; None without any."""
        self._forget(now)
        counted: Counter[int] = Counter()
        for _, some in self._seconds:
            counted.update(some)
        if not counted:
            return None
        return [_value(counted, percent) for percent in percents]

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - self._window:
            self._seconds.popleft()


def _value(counted: Counter[int], percent: float) -> float:
    wanted = math.ceil(counted.total() * percent / 100)
    met = 0
    for bucket in sorted(counted):
        met += counted[bucket]
        if met >= wanted:
            return math.exp((bucket + 0.5) * STEP)
    raise AssertionError
