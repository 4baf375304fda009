"""What the fakes of `step` have in common: what they are given, and what a test reads of them."""

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    ChildFailed,
    ChildTimeout,
    ConfigurationError,
    MapFailed,
    SignalTimeout,
)
from openworkflow.core.failure import Failure
from openworkflow.core.serialization import codec_for
from openworkflow.core.shown import shown
from openworkflow.core.stand_in import StandIn
from openworkflow.core.workflow import DurableFunction, Workflow
from openworkflow.engine.mapping import item_keys, items_given, tolerated
from openworkflow.engine.operations.signal import MISSING
from openworkflow.testing.plans import Call, StepName, calls_of, matches, nearest, play, step_name

FAKE = "fake"
"""What current_step() calls the workflow."""


class ContinuedAsNew(Exception):
    """The workflow has continued as new; `input` is what it goes on with."""

    def __init__(self, input: Any) -> None:
        super().__init__(f"the workflow continues as new with {shown(input)}")
        self.input = input


class FakeCall(AssertionError):
    """A workflow asks a fake for what it was not given; the message says how to give it."""


class Fake(StandIn):
    """What both fakes are, and what a test reads of them.

    `results` are, by step, a value, a function that is called with the step's arguments, or an
    exception; steps without one are called for real. A child workflow is called for real too, with
    this fake. `signals` are what waits for signals get, by name: a list has one for each wait.
    """

    def __init__(
        self,
        *,
        results: Mapping[str, Any] | None = None,
        signals: Mapping[str, Any] | None = None,
        patched: bool = True,
        attempt: int = 1,
        run_id: UUID | None = None,
        scheduled_for: datetime | None = None,
    ) -> None:
        self.run_id, self.attempt = run_id or uuid4(), attempt
        self.scheduled_for = scheduled_for
        self.slept: list[tuple[str, timedelta | datetime]] = []
        """The sleeps, by name and length, or the time that they are until."""
        self.sent: list[tuple[Any, ...]] = []
        """What the workflow has sent as signals."""
        self.paused_limits: list[tuple[str, timedelta | datetime]] = []
        """Names, each with for how long, or until when."""
        self.emitted: list[tuple[str, Any]] = []
        """Topics and values."""
        self.status: Any = None
        """What it told last by set_status."""
        self.tags: dict[str, str] = {}
        self.all_calls: list[Call] = []
        """The calls of steps, in their order."""
        self._results, self._patched = dict(results or {}), patched
        self._signals: dict[str, list[Any]] = defaultdict(list)
        for name, value in (signals or {}).items():
            self._signals[name] += value if isinstance(value, list) else [value]
        self._asked: dict[str, int] = defaultdict(int)
        self._depth = 0
        """How many of the workflows, of which one has called the other, are being called."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} after {shown(self.all_calls, 300)}>"

    @property
    def key(self) -> str:
        """See Step.key."""
        return str(self.run_id)

    def calls(self, step: StepName) -> list[Call]:
        """The calls of a step."""
        return calls_of(step_name(step), self.all_calls, self._asked)

    def emit(self, topic: str, value: Any = None) -> None:
        """See Step.emit."""
        self.emitted.append((topic, value))

    def set_status(self, value: Any) -> None:
        """See Step.set_status."""
        self.status = value

    def tag(self, **tags: str) -> None:
        """See Step.tag."""
        self.tags |= tags

    def _pause(self, name: str, until: datetime | Duration) -> None:
        """Note that a limit was paused."""
        length = until if isinstance(until, datetime) else parse_duration(until)
        self.paused_limits.append((name, length))

    def _key(self, name: str) -> str:
        """The step's key: a name that came before gets an ordinal."""
        nth = self._asked[name]
        self._asked[name] += 1
        return f"{name}:{nth}" if nth else name

    def _result(self, name: str) -> tuple[bool, Any]:
        """Whether the test has given a result for this step, and which."""
        for given, value in self._results.items():
            if given == name:
                return True, value
        return next(((True, v) for g, v in self._results.items() if matches(g, name)), (False, 0))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell of results that no step has asked for, if they are nearly called like one that has.

        Others are no mistake: a test may have results for more than this call comes to.
        """
        self._depth += 1
        try:
            yield
        except Exception as error:
            if self._depth == 1 and (told := self._unmet()):
                error.add_note(told)
            raise
        else:
            if self._depth == 1 and (told := self._unmet()):
                raise FakeCall(told)
        finally:
            self._depth -= 1

    def _unmet(self) -> str:
        left = [each for each in self._asked if not self._result(each)[0]]
        strange = [
            (given, near)
            for given in self._results
            if not any(matches(given, step) for step in self._keys())
            and (near := nearest(given, left)) is not None
            and _letters(given) != _letters(near)
        ]
        told = [f"{given!r}, did you mean {near!r}?" for given, near in strange]
        return f"results= has what no step is called: {' '.join(told)}" if told else ""

    def _keys(self) -> list[str]:
        """All steps that were asked for."""
        return [*self._asked, *(call.step for call in self.all_calls)]

    def _begin(self, name: str, fn: Any, args: tuple[Any, ...], kwargs: Any) -> "Begun":
        """A step: its key, and what it comes to once that is called."""
        if not callable(fn):
            raise ConfigurationError(f"a step takes a function to call, not {shown(fn)}")
        key = self._key(name)
        self.all_calls.append(Call(key, tuple(args), kwargs, self.run_id, 1))
        given, result = self._result(key)
        if given:
            return Begun(key, partial(play, result, args, kwargs))
        plain = fn.fn if isinstance(fn, DurableFunction) else fn
        return Begun(key, partial(plain, *args, **kwargs))

    def _begin_child(self, name: str, workflow: Any, value: Any) -> "Begun":
        key = self._key(name)
        self.all_calls.append(Call(key, (value,), {}, self.run_id, 1))
        given, result = self._result(key)
        if given:
            return Begun(key, partial(play, result, (value,), {}))
        if not isinstance(workflow, Workflow):
            raise FakeCall(
                f"step {key!r} starts the workflow {workflow!r} by its name, which a fake cannot "
                f"call: give its result, results={{{key!r}: ...}}"
            )
        fake = self._for(workflow)
        arguments = (value,) if workflow.takes_input else ()
        return Begun(key, partial(fake._enact, workflow._invoke, (arguments, fake), {}))

    def _for(self, workflow: Workflow[Any, Any]) -> "Fake":
        """This fake, as a workflow of this kind takes it."""
        raise NotImplementedError

    def _as(self, kind: "type[Fake]") -> "Fake":
        """This fake for a workflow of the other kind; both keep what they see in one place."""
        other = kind.__new__(kind)
        other.__dict__ = self.__dict__
        return other

    def _failed(self, key: str, error: Exception) -> Exception:
        """What a parent is told of a child that has failed."""
        if isinstance(error, ChildFailed | ChildTimeout):
            return error
        return ChildFailed(key, uuid4(), "failed", Failure.from_exception(error))

    def _signal(self, name: str, timeout: Duration | None, type_: Any, default: Any) -> Any:
        if waiting := self._signals[name]:
            return codec_for(type_).validate(waiting.pop(0), f"signal {name!r}")
        if default is not MISSING:
            return default
        if timeout is not None:
            raise SignalTimeout(name)
        near = nearest(name, [each for each, left in self._signals.items() if left])
        hint = f"did you mean {near!r}? " if near else ""
        raise FakeCall(
            f"the workflow waits for a signal {name!r} that is not sent; {hint}give it one: "
            f"signals={{{name!r}: ...}}"
        )

    def _send(self, to: Any, message: tuple[Any, ...]) -> UUID:
        self.sent.append((to, *message))
        return uuid4()

    def _sleep(self, name: str, duration: timedelta | datetime) -> None:
        self.slept.append((self._key(name), duration))


def _letters(name: str) -> str:
    """A name without its numbers: those that differ by one are no mistake for one another."""
    return "".join(each for each in name if each.isalpha())


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that is about to be called."""

    key: str
    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Raised:
    """An error, as what something came to."""

    error: Exception


async def outcome_of(coming: Coroutine[Any, Any, Any]) -> Any:
    """What something that is awaited came to."""
    try:
        return await coming
    except Exception as error:
        return Raised(error)


def tried(call: Callable[[], Any]) -> Any:
    """What a call came to."""
    try:
        return call()
    except Exception as error:
        return Raised(error)


def value_of(outcome: Any) -> Any:
    """A value, or the error that came in its place."""
    if isinstance(outcome, Raised):
        raise outcome.error
    return outcome


def items_of(
    name: str,
    items: Iterable[Any],
    key: Callable[[Any], object] | None,
    min_successful: int | None,
    tolerate_failures: int | None,
) -> tuple[list[tuple[str, Any]], int]:
    """The items of a map, each with the key of its step, and how many may fail."""
    given = items_given(name, items)
    most = tolerated(name, len(given), min_successful, tolerate_failures)
    keys = item_keys(name, given, key)
    return [(f"{name}[{each}]", item) for each, item in zip(keys, given, strict=True)], most


def mapped(name: str, outcomes: Sequence[Any], most: int) -> list[Any]:
    """What a map answers, of whose items so many may fail."""
    failed = [place for place, each in enumerate(outcomes) if isinstance(each, Raised)]
    if len(failed) > most:
        first = outcomes[failed[0]].error
        raise MapFailed(name, failed, len(failed), len(outcomes), first) from first
    return [each.error if isinstance(each, Raised) else each for each in outcomes]
