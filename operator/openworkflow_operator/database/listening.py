"""The channel of new work, on which a fleet at zero is woken: a message is a hint to look."""

from __future__ import annotations

import contextlib
from collections.abc import Callable


def heard(on_work: Callable[[], None]) -> Callable[..., None]:
    """A listener that asyncpg may call, whatever the message says."""

    def hear(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is already closing
            on_work()

    return hear
