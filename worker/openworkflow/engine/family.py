"""What a workflow function is handed for other workflows: children, awaited or started."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.serialization import Codec
from openworkflow.core.workflow import Workflow
from openworkflow.engine.asked import Asked
from openworkflow.engine.child_handle import ChildHandle, SyncChildHandle
from openworkflow.engine.child_request import ChildOptions, ChildRequest, OnClose
from openworkflow.engine.mapping import (
    ItemOptions,
    item_keys,
    items_given,
    map_in_branches,
    map_in_turn,
    map_options,
    tolerated,
)
from openworkflow.engine.operations.child import ChildOperation
from openworkflow.engine.operations.child_start import StartOperation
from openworkflow.engine.operations.map import map_operation
from openworkflow.engine.operations.operation import Operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.program import AsyncProgram
    from openworkflow.engine.thread_program import ThreadProgram

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
AnyWorkflow = Workflow[Any, Any] | str


class Family:
    """The part of Step that starts other workflows."""

    __slots__ = ()

    if TYPE_CHECKING:
        _execution: Execution
        _program: AsyncProgram

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
    ) -> Coroutine[Any, Any, ChildHandle[O]]: ...

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
    ) -> Coroutine[Any, Any, ChildHandle[Any]]: ...

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

        def handle(key: str, child: UUID, codec: Codec[Any]) -> ChildHandle[Any]:
            return ChildHandle(self._execution, self._called, key, child, codec)

        return self._called(StartOperation(self._execution, name, request, handle))

    @overload
    def map(
        self,
        name: str,
        over: Workflow[I, O],
        items: Iterable[Any],
        /,
        *,
        concurrency: int = 50,
        key: Callable[[Any], object] | None = None,
        **options: Unpack[ItemOptions],
    ) -> Coroutine[Any, Any, list[O]]: ...

    @overload
    def map(
        self,
        name: str,
        over: Callable[[Any], Awaitable[O]],
        items: Iterable[Any],
        /,
        *,
        concurrency: int = 50,
        key: Callable[[Any], object] | None = None,
        **options: Unpack[ItemOptions],
    ) -> Coroutine[Any, Any, list[O]]: ...

    @overload
    def map(
        self,
        name: str,
        over: Callable[[Any], Any] | Workflow[Any, Any] | str,
        items: Iterable[Any],
        /,
        *,
        concurrency: int = 50,
        key: Callable[[Any], object] | None = None,
        min_successful: int | None = None,
        tolerate_failures: int | None = None,
        **options: Unpack[ItemOptions],
    ) -> Coroutine[Any, Any, list[Any]]: ...

    def map(
        self,
        name: str,
        over: Any,
        items: Iterable[Any],
        /,
        *,
        concurrency: int = 50,
        key: Callable[[Any], object] | None = None,
        min_successful: int | None = None,
        tolerate_failures: int | None = None,
        **options: Unpack[ItemOptions],
    ) -> Coroutine[Any, Any, list[Any]]:
        """Call a function for each item, or run a workflow, and return the results in their order.

        No more than `concurrency` at once. `key` names an item, by default its place does: what is
        done for a key is not done again. Raises MapFailed once more than `tolerate_failures` have
        failed (by default none may), or so many that `min_successful` cannot be reached, and
        cancels the rest; a failure that is tolerated stands in the place of the result, as an
        exception. Over a workflow each item is a child, and the history of this run has one row;
        over a function each is a step, with its `retry`, `timeout` and `rate`, and beyond 400
        items several share one.
        """
        given = items_given(name, items)
        keys = item_keys(name, given, key)
        most = tolerated(name, len(given), min_successful, tolerate_failures)
        if isinstance(over, Workflow | str):
            made = map_operation(
                self._execution,
                name,
                over,
                given,
                keys if key else None,
                concurrency,
                most,
                options,
            )
            return self._called(made)
        wish = map_options(name, over, concurrency, most, options)
        self._program.check_asking(name)  # else each item would be refused, and tried again
        branches = map_in_branches(self._called, self._execution, wish, given, keys)
        return Asked(self._execution.agenda, name, branches)


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
    ) -> SyncChildHandle[O]:
        """See Family.start_workflow."""
        request = ChildRequest(self._execution, workflow, input, options, parent_close)

        def handle(key: str, child: UUID, codec: Codec[Any]) -> SyncChildHandle[O]:
            return SyncChildHandle(self._execution, self._program.ask, key, child, codec)

        started: SyncChildHandle[O] = self._program.ask(
            StartOperation(self._execution, name, request, handle)
        )
        return started

    def map(
        self,
        name: str,
        over: Workflow[Any, Any] | Callable[[Any], Any] | str,
        items: Iterable[Any],
        /,
        *,
        concurrency: int = 50,
        key: Callable[[Any], object] | None = None,
        min_successful: int | None = None,
        tolerate_failures: int | None = None,
        **options: Unpack[ItemOptions],
    ) -> list[Any]:
        """See Family.map; over a function each step takes `concurrency` items."""
        given = items_given(name, items)
        keys = item_keys(name, given, key)
        most = tolerated(name, len(given), min_successful, tolerate_failures)
        if isinstance(over, Workflow | str):
            results: list[Any] = self._program.ask(
                map_operation(
                    self._execution,
                    name,
                    over,
                    given,
                    keys if key else None,
                    concurrency,
                    most,
                    options,
                )
            )
            return results
        wish = map_options(name, over, concurrency, most, options)
        return map_in_turn(self._program.ask, self._execution, wish, given, keys)
