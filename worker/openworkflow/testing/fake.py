"""A stand-in for `step`: unit tests of a workflow function, without a database or a worker.

    receipt = await order(Order(...), FakeStep(results={"charge": "payment-1"}))

It calls the functions of steps once, as they are. What makes a run durable is not here: no retry,
no record, no JSON in between, no replay. For these there is the fixture `ow_env`.
"""

import inspect
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, NoReturn
from uuid import UUID, uuid4

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.workflow import DurableFunction, Workflow, current_run
from openworkflow.engine.operations.signal import MISSING
from openworkflow.testing.fake_base import (
    FAKE,
    Begun,
    ContinuedAsNew,
    Fake,
    items_of,
    mapped,
    outcome_of,
    tried,
    value_of,
)
from openworkflow.testing.fake_context import awaited, inside_step, waited


class FakeStep(Fake):
    """Stands for the Step of an async workflow; see Fake for what it is given."""

    def _for(self, workflow: Workflow[Any, Any]) -> Fake:
        """See Fake."""
        return self._as(FakeStep if workflow.is_async else FakeSyncStep)

    def _enact(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See StandIn."""
        if inspect.isfunction(fn) and not inspect.iscoroutinefunction(fn):
            raise ConfigurationError(f"{_name(fn)} is a plain function: use FakeSyncStep")
        return self._enacted(fn, args, kwargs)

    async def _enacted(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        before = current_run.set(self)
        try:
            with self._watched():
                return await fn(*args, **kwargs)
        finally:
            current_run.reset(before)

    async def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See StepRunner."""
        return await self._called(self._begin(fn.name, fn, args, kwargs))

    async def _called(self, begun: Begun) -> Any:
        with inside_step(self, begun.key, FAKE):
            return await awaited(begun.call())

    async def _ended(self, begun: Begun) -> Any:
        try:
            return await awaited(begun.call())
        except Exception as error:
            raise self._failed(begun.key, error) from error

    async def run(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: Any = None,
        timeout: Any = None,
        undo: Any = None,
        rate: Any = None,
        **kwargs: Any,
    ) -> Any:
        """See Step.run; called once, without `retry`, `timeout`, `undo` and `rate`."""
        return await self._called(self._begin(name, fn, args, kwargs))

    async def sleep(self, name: str, duration: Duration) -> None:
        """See Step.sleep; takes no time."""
        self._sleep(name, parse_duration(duration))

    async def sleep_until(self, name: str, when: datetime) -> None:
        """See Step.sleep_until; takes no time."""
        self._sleep(name, when)

    async def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Any:
        """See Step.wait_for_signal; one that is not given is over at once."""
        return self._signal(name, timeout, type, default)

    async def signal(self, to: Any, /, *message: Any, **options: Any) -> UUID:
        """See Step.signal; kept in `sent`."""
        return self._send(to, message)

    async def pause_limit(self, name: str, until: datetime | Duration) -> None:
        """See Step.pause_limit; kept in `paused_limits`."""
        self._pause(name, until)

    async def run_workflow(
        self, name: str, workflow: Any, input: Any = None, /, **options: Any
    ) -> Any:
        """See Step.run_workflow."""
        return await self._ended(self._begin_child(name, workflow, input))

    async def start_workflow(
        self, name: str, workflow: Any, input: Any = None, /, **options: Any
    ) -> "FakeChild":
        """See Step.start_workflow; the child has ended by then."""
        ended = self._ended(self._begin_child(name, workflow, input))
        return FakeChild(self, await outcome_of(ended))

    async def map(
        self,
        name: str,
        over: Any,
        items: Iterable[Any],
        /,
        *,
        key: Callable[[Any], object] | None = None,
        min_successful: int | None = None,
        tolerate_failures: int | None = None,
        **options: Any,
    ) -> list[Any]:
        """See Step.map; one item after the other."""
        each, most = items_of(name, items, key, min_successful, tolerate_failures)
        answers = []
        for step, item in each:
            if isinstance(over, Workflow | str):
                made = self._ended(self._begin_child(step, over, item))
            else:
                made = self._called(self._begin(step, over, (item,), {}))
            answers.append(await outcome_of(made))
        return mapped(name, answers, most)

    async def patched(self, name: str) -> bool:
        """See Step.patched: what the test has said."""
        return self._patched

    async def continue_as_new(self, input: Any = None) -> NoReturn:
        """See Step.continue_as_new; raises ContinuedAsNew."""
        raise ContinuedAsNew(input)


class FakeChild:
    """See ChildHandle."""

    def __init__(self, fake: Fake, outcome: Any) -> None:
        self.id = uuid4()
        self._fake, self._outcome = fake, outcome

    async def result(self, timeout: Duration | None = None) -> Any:
        """See ChildHandle.result."""
        return value_of(self._outcome)

    async def cancel(self) -> None:
        """See ChildHandle.cancel: it has ended already."""

    async def signal(self, name: str, value: Any = None, /) -> UUID:
        """See ChildHandle.signal; kept in `sent`."""
        return self._fake._send(self.id, (name, value))


class FakeSyncStep(Fake):
    """Stands for the SyncStep of a plain workflow; see Fake for what it is given."""

    def _for(self, workflow: Workflow[Any, Any]) -> Fake:
        """See Fake."""
        return self._as(FakeStep if workflow.is_async else FakeSyncStep)

    def _enact(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See StandIn."""
        if inspect.iscoroutinefunction(fn):
            raise ConfigurationError(f"{_name(fn)} is an async function: use FakeStep")
        before = current_run.set(self)
        try:
            with self._watched():
                return fn(*args, **kwargs)
        finally:
            current_run.reset(before)

    def _call(self, fn: DurableFunction[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """See StepRunner."""
        return self._called(self._begin(fn.name, fn, args, kwargs))

    def _called(self, begun: Begun) -> Any:
        with inside_step(self, begun.key, FAKE):
            return waited(begun.call())

    def _ended(self, begun: Begun) -> Any:
        try:
            return waited(begun.call())
        except Exception as error:
            raise self._failed(begun.key, error) from error

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retry: Any = None,
        timeout: Any = None,
        undo: Any = None,
        rate: Any = None,
        **kwargs: Any,
    ) -> Any:
        """See FakeStep.run."""
        return self._called(self._begin(name, fn, args, kwargs))

    def sleep(self, name: str, duration: Duration) -> None:
        """See FakeStep.sleep."""
        self._sleep(name, parse_duration(duration))

    def sleep_until(self, name: str, when: datetime) -> None:
        """See FakeStep.sleep_until."""
        self._sleep(name, when)

    def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Duration | None = None,
        type: Any = Any,
        default: Any = MISSING,
    ) -> Any:
        """See FakeStep.wait_for_signal."""
        return self._signal(name, timeout, type, default)

    def signal(self, to: Any, /, *message: Any, **options: Any) -> UUID:
        """See FakeStep.signal."""
        return self._send(to, message)

    def pause_limit(self, name: str, until: datetime | Duration) -> None:
        """See FakeStep.pause_limit."""
        self._pause(name, until)

    def run_workflow(self, name: str, workflow: Any, input: Any = None, /, **options: Any) -> Any:
        """See FakeStep.run_workflow."""
        return self._ended(self._begin_child(name, workflow, input))

    def start_workflow(
        self, name: str, workflow: Any, input: Any = None, /, **options: Any
    ) -> "FakeSyncChild":
        """See FakeStep.start_workflow."""
        begun = self._begin_child(name, workflow, input)
        return FakeSyncChild(self, tried(lambda: self._ended(begun)))

    def map(
        self,
        name: str,
        over: Any,
        items: Iterable[Any],
        /,
        *,
        key: Callable[[Any], object] | None = None,
        min_successful: int | None = None,
        tolerate_failures: int | None = None,
        **options: Any,
    ) -> list[Any]:
        """See FakeStep.map."""
        each, most = items_of(name, items, key, min_successful, tolerate_failures)

        def one(step: str, item: Any) -> Any:
            if isinstance(over, Workflow | str):
                return self._ended(self._begin_child(step, over, item))
            return self._called(self._begin(step, over, (item,), {}))

        return mapped(name, [tried(partial(one, step, item)) for step, item in each], most)

    def patched(self, name: str) -> bool:
        """See FakeStep.patched."""
        return self._patched

    def continue_as_new(self, input: Any = None) -> NoReturn:
        """See FakeStep.continue_as_new."""
        raise ContinuedAsNew(input)


class FakeSyncChild:
    """See SyncChildHandle."""

    def __init__(self, fake: Fake, outcome: Any) -> None:
        self.id = uuid4()
        self._fake, self._outcome = fake, outcome

    def result(self, timeout: Duration | None = None) -> Any:
        """See SyncChildHandle.result."""
        return value_of(self._outcome)

    def cancel(self) -> None:
        """See SyncChildHandle.cancel: it has ended already."""

    def signal(self, name: str, value: Any = None, /) -> UUID:
        """See SyncChildHandle.signal; kept in `sent`."""
        return self._fake._send(self.id, (name, value))


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", repr(fn))
