"""What observed values become between two scrapes: the counts of a histogram, a recent maximum."""

import bisect
import threading

from prometheus_client.core import HistogramMetricFamily


class Buckets:
    """The counts of one histogram with one set of labels; `observe(value)` counts one value.

    Values gather until somebody folds them: many are sorted into buckets at once in a fifth of the
    time that it takes to find the bucket of each. Any thread may fold.
    """

    __slots__ = ("_bounds", "_counts", "_gathered", "_lock", "_sum", "observe")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0
        self._gathered: list[float] = []
        self._lock = threading.Lock()
        self.observe = self._gathered.append

    def fold(self) -> None:
        """Sort what has gathered into the buckets."""
        with self._lock:
            values = self._gathered[:]
            del self._gathered[: len(values)]  # what came meanwhile is behind them
            values.sort()
            first = 0
            for place, bound in enumerate(self._bounds):
                end = bisect.bisect_right(values, bound, first)
                self._counts[place] += end - first
                first = end
            self._counts[-1] += len(values) - first
            self._sum += sum(values)

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Report cumulative counts."""
        self.fold()
        total, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
        family.add_metric(labels, buckets, self._sum)


class RecentMaximum:
    """The greatest value of the last `window` seconds, or of no less than half of them."""

    __slots__ = ("_before", "_current", "_half", "_turn")

    def __init__(self, window: float) -> None:
        self._half, self._turn = window / 2, 0.0
        self._before = self._current = 0.0

    def add(self, value: float, now: float) -> float:
        """Take a value at `now` (monotonic seconds) and return the maximum."""
        if now >= self._turn:
            self._before = self._current if now < self._turn + self._half else 0.0
            self._current, self._turn = 0.0, now + self._half
        self._current = max(self._current, value)
        return max(self._before, self._current)
