"""What a workflow function is handed for other workflows: children, awaited or started."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.serialization import Codec
from openworkflow.core.workflow import Workflow
from openworkflow.engine.child_request import ChildOptions, ChildRequest, OnClose
from openworkflow.engine.keys import NAME_LIMIT
from openworkflow.engine.operations.child import ChildOperation
from openworkflow.engine.operations.child_start import (
    ResultOperation,
    StartOperation,
    cancel_operation,
)
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.operations.signal import send_operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.thread_program import ThreadProgram

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
AnyWorkflow = Workflow[Any, Any] | str


class Family:
    """The part of Step that starts other workflows."""

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution

        def _called(self, operation: Operation) -> Coroutine[Any, Any, Any]: ...

    @overload
    def run_workflow(
        self,
        name: str,
        workflow: Workflow[I, O],
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Coroutine[Any, Any, O]: ...

    @overload
    def run_workflow(
        self,
        name: str,
        workflow: str,
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Coroutine[Any, Any, Any]: ...

    def run_workflow(
        self,
        name: str,
        workflow: AnyWorkflow,
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Coroutine[Any, Any, Any]:
        """Run another workflow, as a step, and return its result; costs no worker while it waits.

        Raises ChildFailed if the run fails or is canceled, once `retry` starts no other in its
        place (by default none), and ChildTimeout after `timeout`, which cancels it. The child is
        canceled when this run ends, or gives up the wait, before it has ended; with
        `parent_close="abandon"` it goes on. Its deadline is never later than that of this run,
        whose tags it has.
        """
        request = ChildRequest(self._execution, workflow, input, options, parent_close)
        return self._called(ChildOperation(self._execution, name, request, retry, timeout))

    @overload
    def start_workflow(
        self,
        name: str,
        workflow: Workflow[I, O],
        input: Any = None,
        /,
        *,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> "Coroutine[Any, Any, ChildHandle[O]]": ...

    @overload
    def start_workflow(
        self,
        name: str,
        workflow: str,
        input: Any = None,
        /,
        *,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> "Coroutine[Any, Any, ChildHandle[Any]]": ...

    def start_workflow(
        self,
        name: str,
        workflow: AnyWorkflow,
        input: Any = None,
        /,
        *,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Coroutine[Any, Any, Any]:
        """Start another workflow, as a step, and go on; the handle waits for it, or cancels it.

        Whatever ends this run, also a success, cancels the child if it has not ended by then;
        `parent_close="abandon"` lets it go on.
        """
        request = ChildRequest(self._execution, workflow, input, options, parent_close)

        def handle(key: str, child: UUID, codec: Codec[Any]) -> "ChildHandle[Any]":
            return ChildHandle(self, key, child, codec)

        return self._called(StartOperation(self._execution, name, request, handle))


class ChildHandle(Generic[O]):
    """A child that a workflow has started; the same in every replay. Its methods are steps."""

    __slots__ = ("_codec", "_name", "_step", "id")

    def __init__(self, step: Family, name: str, child: UUID, codec: Codec[O]) -> None:
        self._step, self._name, self.id, self._codec = step, name, child, codec

    def __repr__(self) -> str:
        return f"<child {self.id}>"

    def result(self, timeout: Duration | None = None) -> Coroutine[Any, Any, O]:
        """Wait for its end, and return what its function returned; costs no worker.

        Raises ChildFailed if it failed or was canceled, and ChildTimeout after `timeout`; it goes
        on then, and may be waited for again.
        """
        execution, name = self._step._execution, f"result:{self._name}"
        return self._step._called(
            ResultOperation(execution, name[:NAME_LIMIT], self.id, self._codec, timeout)
        )

    def cancel(self) -> Coroutine[Any, Any, None]:
        """Cancel it; nothing happens to one that has ended."""
        return self._step._called(cancel_operation(self._step._execution, self._name, self.id))

    def signal(self, name: str, value: Any = None, /) -> Coroutine[Any, Any, UUID]:
        """Send it a signal; see Step.signal."""
        return self._step._called(send_operation(self._step._execution, self.id, (name, value), {}))


class SyncFamily:
    """The part of SyncStep that starts other workflows."""

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution
        _program: ThreadProgram

    @overload
    def run_workflow(
        self,
        name: str,
        workflow: Workflow[I, O],
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> O: ...

    @overload
    def run_workflow(
        self,
        name: str,
        workflow: str,
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Any: ...

    def run_workflow(
        self,
        name: str,
        workflow: AnyWorkflow,
        input: Any = None,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> Any:
        """See Family.run_workflow."""
        request = ChildRequest(self._execution, workflow, input, options, parent_close)
        return self._program.ask(ChildOperation(self._execution, name, request, retry, timeout))

    def start_workflow(
        self,
        name: str,
        workflow: Workflow[I, O] | str,
        input: Any = None,
        /,
        *,
        parent_close: OnClose = "cancel",
        **options: Unpack[ChildOptions],
    ) -> "SyncChildHandle[O]":
        """See Family.start_workflow."""
        request = ChildRequest(self._execution, workflow, input, options, parent_close)

        def handle(key: str, child: UUID, codec: Codec[Any]) -> "SyncChildHandle[O]":
            return SyncChildHandle(self, key, child, codec)

        started: SyncChildHandle[O] = self._program.ask(
            StartOperation(self._execution, name, request, handle)
        )
        return started


class SyncChildHandle(Generic[O]):
    """A child that a workflow in a thread has started; see ChildHandle."""

    __slots__ = ("_codec", "_name", "_step", "id")

    def __init__(self, step: SyncFamily, name: str, child: UUID, codec: Codec[O]) -> None:
        self._step, self._name, self.id, self._codec = step, name, child, codec

    def __repr__(self) -> str:
        return f"<child {self.id}>"

    def result(self, timeout: Duration | None = None) -> O:
        """See ChildHandle.result."""
        execution, name = self._step._execution, f"result:{self._name}"
        value: O = self._step._program.ask(
            ResultOperation(execution, name[:NAME_LIMIT], self.id, self._codec, timeout)
        )
        return value

    def cancel(self) -> None:
        """See ChildHandle.cancel."""
        self._step._program.ask(cancel_operation(self._step._execution, self._name, self.id))

    def signal(self, name: str, value: Any = None, /) -> UUID:
        """See ChildHandle.signal."""
        sent: UUID = self._step._program.ask(
            send_operation(self._step._execution, self.id, (name, value), {})
        )
        return sent
