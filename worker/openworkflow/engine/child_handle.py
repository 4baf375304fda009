"""The handles of children that a workflow has started: what can be done with them are steps."""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.serialization import Codec
from openworkflow.engine.keys import NAME_LIMIT
from openworkflow.engine.operations.child_start import ResultOperation, cancel_operation
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.signal import send_operation

O = TypeVar("O")  # noqa: E741


class _Handle(Generic[O]):
    __slots__ = ("_ask", "_codec", "_execution", "_name", "id")

    def __init__(
        self,
        execution: Any,
        ask: Callable[[Operation], Any],
        name: str,
        child: UUID,
        codec: Codec[O],
    ) -> None:
        self._execution, self._ask, self._name = execution, ask, name
        self.id, self._codec = child, codec

    def __repr__(self) -> str:
        return f"<child {self.id}>"

    def _result(self, timeout: Duration | None) -> Operation:
        name = f"result:{self._name}"[:NAME_LIMIT]
        return ResultOperation(self._execution, name, self.id, self._codec, timeout)


class ChildHandle(_Handle[O]):
    """A child that a workflow has started; the same in every replay."""

    __slots__ = ()

    def result(self, timeout: Duration | None = None) -> Coroutine[Any, Any, O]:
        """Wait for its end, and return what its function returned; costs no worker.

        Raises ChildFailed if it failed or was canceled, and ChildTimeout after `timeout`; it goes
        on then, and may be waited for again.
        """
        waiting: Coroutine[Any, Any, O] = self._ask(self._result(timeout))
        return waiting

    def cancel(self) -> Coroutine[Any, Any, None]:
        """Cancel it; nothing happens to one that has ended."""
        canceling: Coroutine[Any, Any, None] = self._ask(
            cancel_operation(self._execution, self._name, self.id)
        )
        return canceling

    def signal(self, name: str, value: Any = None, /) -> Coroutine[Any, Any, UUID]:
        """Send it a signal; see Step.signal."""
        sending: Coroutine[Any, Any, UUID] = self._ask(
            send_operation(self._execution, self.id, (name, value), {})
        )
        return sending


class SyncChildHandle(_Handle[O]):
    """A child that a workflow in a thread has started; see ChildHandle."""

    __slots__ = ()

    def result(self, timeout: Duration | None = None) -> O:
        """See ChildHandle.result."""
        value: O = self._ask(self._result(timeout))
        return value

    def cancel(self) -> None:
        """See ChildHandle.cancel."""
        self._ask(cancel_operation(self._execution, self._name, self.id))

    def signal(self, name: str, value: Any = None, /) -> UUID:
        """See ChildHandle.signal."""
        sent: UUID = self._ask(send_operation(self._execution, self.id, (name, value), {}))
        return sent
