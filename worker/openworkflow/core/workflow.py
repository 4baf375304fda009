"""`@workflow` and `@step`: functions that run durably, and the registry a worker serves."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from openworkflow.core.annotations import resolve
from openworkflow.core.build_policy import BuildPolicy, valid_build_policy
from openworkflow.core.cron import Cron, named_schedules
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.guesses import AnswersGuesses
from openworkflow.core.limits import Limit, Limits, Rate, step_rate
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.options import OF_A_STEP, OF_A_WORKFLOW, refuse_unknown
from openworkflow.core.parameters import (
    check_function,
    check_step,
    default_name,
    names_used,
    parameters_of,
    takes_in_order,
)
from openworkflow.core.priority import check_workflow_priority
from openworkflow.core.retry import DEFAULT_WORKFLOW_RETRY, RetryPolicy, check_policy
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.stand_in import StandIn

if TYPE_CHECKING:
    from openworkflow.core.signatures import (
        StepDecorator,
        TakesStep,
        TakesSyncStep,
        WorkflowDecorator,
    )
    from openworkflow.engine.step import Step, SyncStep

I = TypeVar("I", contravariant=True)  # noqa: E741, PLC0105
O = TypeVar("O")  # noqa: E741
P = ParamSpec("P")
R = TypeVar("R")


class StepRunner(Protocol):
    """What a call of a `@step` function is handed to while a workflow runs."""

    def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run it as a step of the current run."""


class _InsideStep:
    """Runs functions decorated with `@step` as the plain functions that they are inside a step."""

    def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See StepRunner."""
        return fn.fn(*args, **kwargs)


INSIDE_STEP: StepRunner = _InsideStep()
current_run: ContextVar[StepRunner | None] = ContextVar("openworkflow_current_run", default=None)
"""The run whose workflow function is executing, INSIDE_STEP in a step, None elsewhere."""


class Workflow(AnswersGuesses, Generic[I, O]):
    """A durable function with its name, version and policies; made by `@workflow`.

    Calling it calls the plain function. Raises ConfigurationError for a name or version that cannot
    be stored, or a function that takes anything but `input` and `step`. `names` are those visible
    where the function is defined: its annotations may be text that mentions local classes.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        version: str | None = None,
        retry: RetryPolicy = DEFAULT_WORKFLOW_RETRY,
        deadline: Duration | None = None,
        build_policy: BuildPolicy | None = None,
        schedule: Cron | Sequence[Cron] = (),
        limits: Sequence[Limit] = (),
        rate: Rate | Sequence[Rate] = (),
        priority: int = 0,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        check_function(fn)
        self.fn = fn
        self._names = names_used(fn, names or {})
        self.name = storable_text(
            "a workflow's name", default_name(fn) if name is None else name, NAME_LIMIT
        )
        self.version = (
            None if version is None else storable_text("a workflow's version", version, NAME_LIMIT)
        )
        check_policy(f"workflow {self.name!r}", retry)
        self.retry = retry
        self.build_policy = valid_build_policy(build_policy, self.name)
        self.deadline = None if deadline is None else parse_duration(deadline)
        self.is_async = inspect.iscoroutinefunction(fn)
        self._input, self._step = parameters_of(fn, self.name)
        self.takes_input, self.takes_step = self._input is not None, self._step is not None
        self.schedules = named_schedules(schedule, self.name)
        self.limits = Limits(self.name, limits, rate)
        self.priority = check_workflow_priority(self.name, priority)
        self._in_order = takes_in_order(fn, (self._input, self._step))
        update_wrapper(self, fn)

    @property
    def key(self) -> tuple[str, str]:
        """Name and version, the version "" where there is none."""
        return self.name, self.version or ""

    @cached_property
    def input_codec(self) -> Codec[I]:
        """The codec of the input; resolved at first use, when the function's module is complete."""
        return codec_for(self._hints.get(self._input or "", Any))

    @cached_property
    def output_codec(self) -> Codec[O]:
        """The codec of the return annotation."""
        return codec_for(self._hints.get("return", Any))

    def _invoke(self, arguments: tuple[Any, ...], step: Any) -> Any:
        """Call the function with its input and the step, so far as it takes them."""
        if self._in_order and arguments:
            return self.fn(arguments[0], step)
        named = {self._step: step} if self._step is not None else {}
        if self._input is not None and arguments:
            named[self._input] = arguments[0]
        return self.fn(**named)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function."""
        for each in (*args, *kwargs.values()):
            if isinstance(each, StandIn):
                return each._enact(self.fn, args, kwargs)
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        version = f", version={self.version!r}" if self.version else ""
        return f"<workflow {self.name!r}{version}>"

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.fn, localns=self._names or None, include_extras=True)
        except Exception as error:
            # `step: Step` may be imported for type checkers only; the rest still counts.
            hints = {
                name: resolve(annotation, self.fn, self._names)
                for name, annotation in getattr(self.fn, "__annotations__", {}).items()
                if name != self._step
            }
            if any(isinstance(hint, str) for hint in hints.values()):
                raise ConfigurationError(
                    f"workflow {self.name!r}: its annotations cannot be resolved ({error}); import "
                    "their types at the top of the module, outside of `if TYPE_CHECKING`"
                ) from None
            return hints


class DurableFunction(Generic[P, R]):
    """A function decorated with `@step`: durable when a workflow calls it, plain elsewhere."""

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        undo: Any = None,
        rate: str | Rate | None = None,
    ) -> None:
        check_step(fn)
        self.fn, self.undo, self.rate = fn, undo, rate
        self.name = storable_text(
            "a step's name", default_name(fn) if name is None else name, NAME_LIMIT
        )
        if retry is not None:
            check_policy(f"step {self.name!r}", retry)
        if rate is not None:
            step_rate(self.name, rate)
        self.retry, self.timeout = retry, None if timeout is None else parse_duration(timeout)
        update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside an async workflow also a sync function must be awaited: it runs in a thread."""
        run = current_run.get()
        if run is None:
            return self.fn(*args, **kwargs)
        result: R = run._call(self, args, kwargs)
        return result

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return DurableFunction(
            self.fn.__get__(instance, owner),
            name=self.name,
            retry=self.retry,
            timeout=self.timeout,
            undo=self.undo,
            rate=self.rate,
        )


@overload
def workflow(fn: Callable[[], Coroutine[Any, Any, O]], /) -> Workflow[None, O]: ...
@overload
def workflow(fn: TakesStep[O], /) -> Workflow[None, O]: ...  # type: ignore[overload-overlap]
@overload
def workflow(fn: Callable[[I, Step], Coroutine[Any, Any, O]], /) -> Workflow[I, O]: ...
@overload
def workflow(fn: Callable[[Step, I], Coroutine[Any, Any, O]], /) -> Workflow[I, O]: ...
@overload
def workflow(fn: Callable[[I], Coroutine[Any, Any, O]], /) -> Workflow[I, O]: ...
@overload
def workflow(fn: Callable[[], O], /) -> Workflow[None, O]: ...
@overload
def workflow(fn: TakesSyncStep[O], /) -> Workflow[None, O]: ...  # type: ignore[overload-overlap]
@overload
def workflow(fn: Callable[[I, SyncStep], O], /) -> Workflow[I, O]: ...
@overload
def workflow(fn: Callable[[SyncStep, I], O], /) -> Workflow[I, O]: ...
@overload
def workflow(fn: Callable[[I], O], /) -> Workflow[I, O]: ...
@overload
def workflow(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    retry: RetryPolicy = ...,
    deadline: Duration | None = None,
    build_policy: BuildPolicy | None = None,
    schedule: Cron | Sequence[Cron] = (),
    limits: Sequence[Limit] = (),
    rate: Rate | Sequence[Rate] = (),
    priority: int = 0,
) -> WorkflowDecorator: ...


def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | None = None,
    retry: RetryPolicy = DEFAULT_WORKFLOW_RETRY,
    deadline: Duration | None = None,
    build_policy: BuildPolicy | None = None,
    schedule: Cron | Sequence[Cron] = (),
    limits: Sequence[Limit] = (),
    rate: Rate | Sequence[Rate] = (),
    priority: int = 0,
    **unknown: Any,
) -> Any:
    """Make a function a workflow; bare, or with options.

    The function takes at most an `input` (any name) and a `step` (named so, or annotated Step).
    `name` defaults to the function's, with dashes. Runs keep the `version` they were created with.
    `retry` is for errors outside the steps; `deadline` counts from a run's creation.
    `build_policy` overrides the worker's: "pinned" runs are finished by the build that began them,
    "moving" ones by any that takes new runs. `schedule` starts it again and again, from the moment
    a worker serves it; several schedules need names. `limits` say how many runs are executed at
    once, `rate` how many begin in some time, for each key. Its runs are claimed as if they had been
    due `priority` hours earlier, or later where it is below 0.
    """
    refuse_unknown("workflow", unknown, workflow.__kwdefaults__, OF_A_WORKFLOW)

    def decorate(fn: Callable[..., Any]) -> Workflow[Any, Any]:
        return Workflow(
            fn,
            name=name,
            version=version,
            retry=retry,
            deadline=deadline,
            build_policy=build_policy,
            schedule=schedule,
            limits=limits,
            rate=rate,
            priority=priority,
            names=sys._getframe(1 if bare is None else 2).f_locals,
        )

    bare = fn
    return decorate if fn is None else decorate(fn)


@overload
def step(
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> DurableFunction[P, Coroutine[Any, Any, R]]: ...
@overload
def step(fn: Callable[P, Any], /) -> DurableFunction[P, Any]: ...
@overload
def step(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    undo: Any = None,
    rate: str | Rate | None = None,
) -> StepDecorator: ...


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    undo: Any = None,
    rate: str | Rate | None = None,
    **unknown: Any,
) -> Any:
    """Make a function a step wherever a workflow calls it; bare, or with options as of `step.run`.

    `undo` is a function that is called with the step's result, or an Undo.
    """
    refuse_unknown("step", unknown, step.__kwdefaults__, OF_A_STEP)

    def decorate(fn: Callable[..., Any]) -> DurableFunction[..., Any]:
        return DurableFunction(fn, name=name, retry=retry, timeout=timeout, undo=undo, rate=rate)

    return decorate if fn is None else decorate(fn)
