"""What a workflow's function may look like, for type checkers; nothing here runs.

One input at most, under any name, and the step. A function with a second input fits none of these.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from openworkflow.core.workflow import DurableFunction, Workflow
    from openworkflow.engine.step import Step, SyncStep

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
P = ParamSpec("P")
R = TypeVar("R")
O_co = TypeVar("O_co", covariant=True)


class TakesStep(Protocol[O_co]):
    """An async function of the step alone, told from one of an input by the parameter's name."""

    def __call__(self, step: "Step") -> Coroutine[Any, Any, O_co]:
        """Call it."""
        ...


class TakesSyncStep(Protocol[O_co]):
    """A plain function of the step alone."""

    def __call__(self, step: "SyncStep") -> O_co:
        """Call it."""
        ...


class WorkflowDecorator(Protocol):
    """`@workflow(...)`: as the bare one, see `workflow`."""

    @overload
    def __call__(self, fn: Callable[[], Coroutine[Any, Any, O]], /) -> "Workflow[None, O]": ...
    @overload
    def __call__(self, fn: TakesStep[O], /) -> "Workflow[None, O]": ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, fn: "Callable[[I, Step], Coroutine[Any, Any, O]]", /
    ) -> "Workflow[I, O]": ...
    @overload
    def __call__(
        self, fn: "Callable[[Step, I], Coroutine[Any, Any, O]]", /
    ) -> "Workflow[I, O]": ...
    @overload
    def __call__(self, fn: Callable[[I], Coroutine[Any, Any, O]], /) -> "Workflow[I, O]": ...
    @overload
    def __call__(self, fn: Callable[[], O], /) -> "Workflow[None, O]": ...
    @overload
    def __call__(self, fn: TakesSyncStep[O], /) -> "Workflow[None, O]": ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: "Callable[[I, SyncStep], O]", /) -> "Workflow[I, O]": ...
    @overload
    def __call__(self, fn: "Callable[[SyncStep, I], O]", /) -> "Workflow[I, O]": ...
    @overload
    def __call__(self, fn: Callable[[I], O], /) -> "Workflow[I, O]": ...


class StepDecorator(Protocol):
    """`@step(...)`. What a call of a plain function gives is `Any`: its result, but a coroutine of
    that in an async workflow, which the function's type does not tell.
    """

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> "DurableFunction[P, Coroutine[Any, Any, R]]": ...
    @overload
    def __call__(self, fn: Callable[P, Any], /) -> "DurableFunction[P, Any]": ...
