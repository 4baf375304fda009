"""The order of sets of futures, which asyncio answers and walks: it follows from their hashes.

Tasks and futures that the loop makes hash by numbers of their own. Those of `asyncio.gather` are
made without it, by a class of asyncio's, which is told here to ask the loop. One that is made by
`asyncio.Future()` cannot be told anything: where its place in a set would be seen, it is refused.
"""

import asyncio
import sys
from typing import Any

from openworkflow.core.errors import ConfigurationError

_gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]
_waiting = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]


class NumberedFuture(asyncio.Future[Any]):
    """A future made by hand, or by `asyncio.shield`; its hash is its number, as a task's is."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        """A number that is the same in every execution."""
        return self._number


def check_waiting() -> None:
    """Refuse what `asyncio.wait` would answer in an order that changes, if that makes a future.

    To be called by the loop's method. Raises ConfigurationError.
    """
    frame = sys._getframe(2)
    if frame.f_code is not _waiting:
        return
    plain: Any = object.__hash__
    unnumbered = [each for each in frame.f_locals["fs"] if type(each).__hash__ is plain]
    if len(unnumbered) > 1:
        raise ConfigurationError(
            "asyncio.wait answers sets, and the order of futures made by asyncio.Future() changes "
            "with every execution; make them with asyncio.get_running_loop().create_future()"
        )


def _hash(future: Any) -> int:
    """A number of its workflow's; of any other loop, what it was before."""
    number = getattr(future.get_loop(), "number", None)
    if number is None:
        return object.__hash__(future)
    if not hasattr(future, "openworkflow_number"):
        future.openworkflow_number = number()
    told: int = future.openworkflow_number
    return told


_gathering.__hash__ = _hash
