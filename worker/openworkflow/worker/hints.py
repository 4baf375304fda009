"""Messages are hints to look; anybody may send them, so a flood of them costs few looks.

The first is followed at once. If it led to nothing, the next is followed a little later, and so on;
one that leads to something ends that.
"""

from collections.abc import Callable
from time import monotonic


class Patience:
    """How long after a look the next hint is followed, in seconds."""

    __slots__ = ("_longest", "_now", "_pause", "_seen", "_shortest")

    def __init__(
        self, shortest: float, longest: float, *, now: Callable[[], float] = monotonic
    ) -> None:
        self._shortest, self._longest, self._now = shortest, longest, now
        self._pause = 0.0
        self._seen = float("-inf")

    def wait(self, *, led_to_something: bool) -> float:
        """Seconds until the hint of now may be followed, given what the look before it found."""
        since = self._now() - self._seen
        if led_to_something or since >= self._longest:
            self._pause = 0.0
        return max(0.0, self._pause - since)

    def looked(self) -> None:
        """A hint was followed just now."""
        self._seen = self._now()
        self._pause = min(max(self._shortest, 2 * self._pause), self._longest)
