"""`step.map` over a function: a step for each item, or for a few where there are many items.

The rows of a run are bounded: beyond MOST_ROWS items each step takes as many as it must, and has
their results together. Over workflows see operations/map.py.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from openworkflow.core.callee import OPTIONS, callee, with_own
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError, MapFailed, Suspended
from openworkflow.core.failure import Failure
from openworkflow.core.limits import Rate, step_rate
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.options import nearest
from openworkflow.core.retry import DEFAULT_STEP_RETRY, RetryPolicy
from openworkflow.core.shown import shown
from openworkflow.engine import calls, rated
from openworkflow.engine.child_request import ChildOptions
from openworkflow.engine.operations.call import CallOperation
from openworkflow.engine.request import MAP_OPTIONS

MOST_ROWS = 400
"""Steps of one map over a function; a run may make a thousand attempts unless told otherwise."""
_NEVER = RetryPolicy(max_attempts=1)


class ItemOptions(ChildOptions, total=False):
    """Options of the items of a map."""

    retry: RetryPolicy | None
    """Retries of an item, for a function: as of any step."""
    timeout: Duration | None
    """Time limit of each attempt, for a function."""
    rate: str | Rate | None
    """Rate of each attempt of each item, for a function: as of any step."""


class MapOptions(NamedTuple):
    """What is said of a map over a function."""

    name: str
    fn: Callable[..., Any]
    concurrency: int
    tolerated: int
    retry: RetryPolicy | None
    timeout: Duration | None
    rate: str | Rate | None


def map_options(
    name: str,
    fn: Callable[..., Any],
    concurrency: int,
    most: int,
    options: Mapping[str, Any],
) -> MapOptions:
    """What is said of a map over a function. Raises ConfigurationError or TypeError."""
    if type(concurrency) is not int or concurrency < 1:
        raise ConfigurationError(
            f"map {shown(name)}: concurrency is a whole number from 1, not {shown(concurrency)}"
        )
    if unknown := options.keys() - OPTIONS:
        given = min(unknown)
        near = nearest(given, [*MAP_OPTIONS, *OPTIONS])
        raise TypeError(
            f"step.map() over a function has no option {given!r}; "
            + (f"did you mean {near!r}? What" if near else "what")
            + " each call takes beside its item is bound to the function: "
            f"functools.partial(function, {given}=...)"
        )
    said = (options.get(each) for each in ("retry", "timeout", "undo", "rate"))
    retry, timeout, undo, rate = with_own(fn, *said)
    if undo is not None:
        raise ConfigurationError(
            f"map {shown(name)}: the items of a map over a function are not undone: map over a "
            "workflow that calls it with its undo"
        )
    if rate is not None:
        step_rate(name, rate)
    return MapOptions(name, fn, concurrency, most, retry, timeout, rate)


def items_given(name: str, items: object) -> list[Any]:
    """The items of a map. Raises ConfigurationError, for its name too."""
    storable_text("a step's name", name, NAME_LIMIT)
    if not isinstance(items, Iterable) or isinstance(items, str | bytes):
        raise ConfigurationError(f"map {shown(name)}: items is a list of them, not {shown(items)}")
    if isinstance(items, set | frozenset):
        raise ConfigurationError(
            f"map {shown(name)}: the order of a set is another one in another process, so that a "
            "replay would take one item for another: give a list, such as sorted(items)"
        )
    return list(items)


def item_keys(name: str, items: Sequence[Any], key: Callable[[Any], object] | None) -> list[str]:
    """What each item is called, by `key` or place. Raises ConfigurationError for two alike."""
    if key is None:
        return [str(place) for place in range(len(items))]
    if not callable(key):
        raise ConfigurationError(
            f"map {shown(name)}: key is a function of an item, such as lambda order: order.number, "
            f"not {shown(key)}"
        )
    keys = [_text(name, key(item)) for item in items]
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        twice = next(each for each in keys if each in seen or seen.add(each))  # type: ignore[func-returns-value]
        raise ConfigurationError(
            f"map {shown(name)}: two items have the key {shown(twice)}; a key is for one item"
        )
    return keys


def _text(name: str, key: object) -> str:
    try:
        return storable_text("an item's key", str(key), NAME_LIMIT)
    except (ConfigurationError, ValueError):  # or a number with too many digits
        raise ConfigurationError(
            f"map {shown(name)}: an item's key is a text of at most {NAME_LIMIT} characters, "
            f"not {shown(key)}"
        ) from None


def tolerated(
    name: str, items: int, min_successful: int | None, tolerate_failures: int | None
) -> int:
    """How many items may fail. Raises ConfigurationError."""
    for option, value in (
        ("min_successful", min_successful),
        ("tolerate_failures", tolerate_failures),
    ):
        if value is not None and (type(value) is not int or value < 0):
            raise ConfigurationError(
                f"map {shown(name)}: {option} is a whole number from 0, not {shown(value)}"
            )
    if min_successful is None:
        return tolerate_failures or 0
    if min_successful > items:
        raise ConfigurationError(
            f"map {shown(name)}: min_successful is {shown(min_successful)}, and there are {items} "
            "items"
        )
    left = items - min_successful
    return left if tolerate_failures is None else min(left, tolerate_failures)


def is_part(operation: CallOperation) -> bool:
    """Whether it is a step of a map that takes several items."""
    return operation.retry is _NEVER


async def map_in_branches(
    called: Callable[[CallOperation], Coroutine[Any, Any, Any]],
    execution: Any,
    options: MapOptions,
    items: Sequence[Any],
    keys: Sequence[str],
) -> list[Any]:
    """Run the steps in branches of the workflow, as many at once as the options say."""
    size = max(1, -(-len(items) // MOST_ROWS))
    at_once = max(1, options.concurrency // size)
    parts = iter(_parts(execution, options, items, keys, size))
    answers: dict[int, Any] = {}
    going: dict[asyncio.Task[Any], int] = {}
    failed: list[int] = []
    try:
        while True:
            while len(going) < at_once and (part := next(parts, None)) is not None:
                start, operation = part
                going[asyncio.create_task(called(operation))] = start
            if not going:
                break
            done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=going.__getitem__):
                start = going.pop(task)
                answers[start] = [_answer(task)] if size == 1 else _results(options, task.result())
                failed += [
                    start + place
                    for place, each in enumerate(answers[start])
                    if isinstance(each, _Failed)
                ]
            _check(options, failed, answers, len(items))
    finally:
        for task in going:
            task.cancel()
    return _in_order(answers)


def map_in_turn(
    ask: Callable[[CallOperation], Any],
    execution: Any,
    options: MapOptions,
    items: Sequence[Any],
    keys: Sequence[str],
) -> list[Any]:
    """Run the steps in turn, `concurrency` items in each: for a workflow in a thread."""
    size = max(options.concurrency, -(-len(items) // MOST_ROWS))
    answers: dict[int, Any] = {}
    failed: list[int] = []
    for start, operation in _parts(execution, options, items, keys, max(2, size)):
        answers[start] = _results(options, ask(operation))
        failed += [
            start + place for place, each in enumerate(answers[start]) if isinstance(each, _Failed)
        ]
        _check(options, failed, answers, len(items))
    return _in_order(answers)


class _Failed(NamedTuple):
    error: Exception


def _parts(
    execution: Any, options: MapOptions, items: Sequence[Any], keys: Sequence[str], size: int
) -> Iterator[tuple[int, CallOperation]]:
    """The steps, each with the place of its first item."""
    name, fn = options.name, options.fn
    for start in range(0, len(items), size):
        key = f"{name}[{keys[start]}]"
        if size == 1:
            said = (options.retry, options.timeout, options.rate)
            yield start, CallOperation(execution, key, fn, (items[start],), {}, *said)
            continue
        part = list(zip(keys[start : start + size], items[start : start + size], strict=True))
        run = _runner(execution, options, part)
        yield start, CallOperation(execution, key, run, (), {}, _NEVER, None)


def _runner(
    execution: Any, options: MapOptions, part: Sequence[tuple[str, Any]]
) -> Callable[[], Coroutine[Any, Any, list[Any]]]:
    """The function of a step of several items; no failure of one is a failure of the step."""

    async def run_items() -> list[Any]:
        room = asyncio.Semaphore(options.concurrency)

        async def one(key: str, item: Any) -> dict[str, Any]:
            async with room:
                return await _attempts(execution, options, key, item)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(key, item)) for key, item in part]
        return [task.result() for task in tasks]

    return run_items


async def _attempts(execution: Any, options: MapOptions, key: str, item: Any) -> dict[str, Any]:
    """Call the function for one item, as often as its policy says, without recording in between."""
    about, policy = callee(options.fn), options.retry or DEFAULT_STEP_RETRY
    timeout, services, attempt = options.timeout, execution.services, 0
    while True:
        attempt += 1
        step = CallOperation(
            execution, f"{options.name}[{key}]", options.fn, (item,), {}, None, timeout
        )
        step.about = about
        step.seconds = None if timeout is None else parse_duration(timeout).total_seconds()
        if options.rate is not None:
            rate = step_rate(options.name, options.rate)
            await rated.take_turn(step, rate, is_within=True)
        try:
            call = calls.call if step.seconds is None else calls.call_within
            value = await call(step, services.step_threads)
            if execution.stopped is not None:
                raise Suspended
            text = about.codec.encode(value, "result of step", services.payload_limit, step.name)
            return {"value": json.loads(text or "null")}
        except Exception as error:
            if not policy.retries(error) or policy.exhausted(attempt):
                return {"error": json.loads(Failure.from_exception(error).to_json())}
        await asyncio.sleep(policy.delay(attempt).total_seconds())


def _answer(task: asyncio.Task[Any]) -> Any:
    try:
        return task.result()
    except Exception as error:
        return _Failed(error)


def _results(options: MapOptions, rows: Sequence[Any]) -> list[Any]:
    codec = callee(options.fn).codec
    return [
        _Failed(Failure.from_object(row["error"]).reraisable(options.name, 1))
        if "error" in row
        else codec.validate_stored(row["value"])
        for row in rows
    ]


def _check(options: MapOptions, failed: Sequence[int], answers: dict[int, Any], items: int) -> None:
    if len(failed) > options.tolerated:
        first = next(
            each for start in sorted(answers) for each in answers[start] if type(each) is _Failed
        )
        where = (options.name, sorted(failed), len(failed), items)
        raise MapFailed(*where, first.error) from first.error


def _in_order(answers: dict[int, Any]) -> list[Any]:
    return [
        each.error if isinstance(each, _Failed) else each
        for start in sorted(answers)
        for each in answers[start]
    ]
