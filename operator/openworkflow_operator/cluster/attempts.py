"""How soon to try again what was refused, or undone each time: for each object by itself.

A look at the database leads to a visit, every second where it is asked for so, and each would try
again: a policy that refuses an object, or changes it, would cost a write at each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openworkflow_operator.api.spec import Key

FIRST_PAUSE_SECONDS: Final = 0.5
#: So long at most until it is known that what refused it does so no more.
LONGEST_PAUSE_SECONDS: Final = 15.0
#: What somebody changes is put right at once so many times: a hand is no fight.
FREE_CORRECTIONS: Final = 3
LONGEST_TRUCE_SECONDS: Final = 60.0
#: So long after the last change it is told: one that comes every minute is told all the time.
TOLD_SECONDS: Final = 150.0
#: After so long the next change is by another hand.
FORGOTTEN_SECONDS: Final = 600.0


class Contested(Exception):
    """The object is changed again each time; the message has the fields."""

    def __init__(self, kind: str, name: str, fields: str) -> None:
        super().__init__(fields)
        self.kind, self.name = kind, name


class Waiting(Exception):
    """The next try is to come in `seconds`; `error` says what became of the last one."""

    def __init__(self, error: Exception, seconds: float) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


@dataclass(frozen=True, slots=True)
class What:
    """What is tried: a verb on an object, with a digest of what is wanted of it, if any."""

    kind: str
    name: str
    verb: str
    wanted: str = ""


@dataclass(slots=True)
class _Try:
    wanted: str
    count: int
    at: float
    error: Exception


class Attempts:
    """What was tried in vain, by resource. Something else that is wanted is tried at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: dict[Key, dict[_Place, _Try]] = {}
        self._made: dict[Key, dict[_Place, str]] = {}

    def check(self, resource: Key, what: What) -> None:
        """Raises Waiting if it is too early."""
        known = self._known(resource, what)
        if known is None:
            return
        if isinstance(known.error, Contested):
            count = known.count - FREE_CORRECTIONS
            pause = min(LONGEST_TRUCE_SECONDS, 2.0**count) if count >= 0 else 0.0
        else:
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (known.count - 1))
        if (left := known.at + pause - self._clock()) > 0:
            raise Waiting(known.error, left)

    def failed(self, resource: Key, what: What, error: Exception) -> None:
        """Count a try that came to this."""
        known = self._known(resource, what)
        is_same = known is not None and isinstance(known.error, type(error))
        count = min(known.count + 1, 60) if known is not None and is_same else 1
        now, tries = self._clock(), self._tries.get(resource, {})
        kept = {p: each for p, each in tries.items() if now - each.at <= FORGOTTEN_SECONDS}
        self._tries[resource] = kept | {_place(what): _Try(what.wanted, count, now, error)}

    def is_undone(self, resource: Key, what: What) -> bool:
        """Whether the same was done before, so that somebody has changed it since."""
        return self._made.get(resource, {}).get(_place(what)) == what.wanted

    def contests(self, resource: Key) -> list[Contested]:
        """What is changed again and again."""
        now, tries = self._clock(), self._tries.get(resource, {}).values()
        recent = (t for t in tries if t.count > FREE_CORRECTIONS and now - t.at < TOLD_SECONDS)
        return [known.error for known in recent if isinstance(known.error, Contested)]

    def worked(self, resource: Key, what: What) -> None:
        """Note what is as wanted now; whether it stays so is another matter."""
        if what.wanted:
            self._made.setdefault(resource, {})[_place(what)] = what.wanted
        known = self._known(resource, what)
        if known is not None and not isinstance(known.error, Contested):
            del self._tries[resource][_place(what)]

    def forget(self, resource: Key) -> None:
        """The resource is gone."""
        self._tries.pop(resource, None)
        self._made.pop(resource, None)

    def _known(self, resource: Key, what: What) -> _Try | None:
        known = self._tries.get(resource, {}).get(_place(what))
        if known is None or known.wanted != what.wanted:
            return None
        return None if self._clock() - known.at > FORGOTTEN_SECONDS else known


_Place = tuple[str, str, str]


def _place(what: What) -> _Place:
    return (what.kind, what.name, what.verb)
