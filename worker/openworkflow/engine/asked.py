"""What a workflow function asks its run for that is no single operation, and has to await too."""

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

if TYPE_CHECKING:
    from openworkflow.engine.agenda import Agenda

T = TypeVar("T")


class Asked(Coroutine[Any, Any, T]):
    """A coroutine that a run knows by `name` until it is awaited, so that none is forgotten.

    What is taken for its own answer, as in `if step.patched("tax")`, is refused where it happens.
    """

    __slots__ = ("_agenda", "_coroutine", "name")

    def __init__(self, agenda: "Agenda", name: str, coroutine: Coroutine[Any, Any, T]) -> None:
        self.name = name
        self._agenda, self._coroutine = agenda, coroutine
        agenda.unawaited[self] = coroutine

    def __bool__(self) -> bool:
        raise ConfigurationError(
            f"{shown(self.name)} has no answer before it is awaited: write `await` before the call"
        )

    def __await__(self) -> Generator[Any, Any, T]:
        self._agenda.unawaited.pop(self, None)
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """Go on; a task of asyncio does."""
        self._agenda.unawaited.pop(self, None)
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it stands."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it: it is not wanted any more."""
        self._agenda.unawaited.pop(self, None)
        self._coroutine.close()
