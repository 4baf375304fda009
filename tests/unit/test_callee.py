"""What is known of a function before it is called as a step, whatever it is made of."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import re
import sys
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import AsyncMock

import pytest

from openworkflow.core import callee as module
from openworkflow.core.callee import callee, check_call
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.serialization import codec_for
from openworkflow.core.workflow import step, workflow

if TYPE_CHECKING:
    from elsewhere import Unknown  # type: ignore[import-not-found]

ANY = codec_for(Any)


@dataclass
class Item:
    name: str


def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def unwrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def number() -> int:
    return 1


def word(timeout: float = 1) -> str:
    return "a"


async def item(name: str, *, retry: int = 0) -> Item:
    return Item(name)


def unresolved(x: Unknown) -> Unknown: ...


def half_resolved(x: Unknown) -> Item:
    return Item("")


class Service:
    def method(self, retry: int) -> int:
        return 1

    @classmethod
    async def made(cls) -> Item:
        return Item("")

    @staticmethod
    def fixed(timeout: int, /) -> Decimal:
        return Decimal(1)

    def __call__(self, x: int) -> Item:
        return Item("")


class AsyncService:
    async def __call__(self) -> Item:
        return Item("")


@functools.singledispatch
def dispatched(x: Any) -> int | str:
    return 1


@dispatched.register
def _of_text(x: str) -> str:
    return x


@dispatched.register
def _of_float(x: float) -> int:
    return 1


@step(name="charge")
async def charge(amount: int, timeout: int) -> Item:
    return Item("")


@workflow
async def orders() -> Item:
    return Item("")


@functools.lru_cache
def cached(x: int) -> Item:
    return Item("")


def test_functions_wrapped_by_one_decorator_keep_their_own_types() -> None:
    assert codec_for(int) is callee(traced(number)).codec
    assert codec_for(str) is callee(traced(word)).codec
    assert codec_for(Item) is callee(traced(traced(item))).codec
    assert {"timeout"} == callee(traced(word)).options
    assert frozenset() == callee(traced(number)).options
    assert ANY is callee(unwrapped(number)).codec


def test_functions_of_one_factory_keep_their_own_types() -> None:
    def make(kind: Any) -> Callable[[], Any]:
        def made() -> Any: ...

        made.__annotations__["return"] = kind
        return made

    kinds = [int, str, list[int], int | str, str | int, Annotated[list[int], ["unhashable"]]]

    for kind in kinds:
        assert repr(kind) == repr(callee(make(kind)).codec._annotation)
    assert callee(make(int)) is callee(make(int))


@pytest.mark.parametrize(
    ("fn", "is_async", "kind"),
    [
        (number, False, int),
        (item, True, Item),
        (lambda: 1, False, Any),
        (unresolved, False, Any),
        (half_resolved, False, Item),
        (Service().method, False, int),
        (Service.made, True, Item),
        (Service.fixed, False, Decimal),
        (Service.__dict__["fixed"], False, Decimal),
        (Service(), False, Item),
        (AsyncService(), True, Item),
        (functools.partial(item, "x"), True, Item),
        (functools.partial(functools.partial(word), 5), False, str),
        (functools.partial(AsyncService()), True, Item),
        (Item, False, Item),
        (int, False, int),
        (asyncio.Future, False, Any),
        (len, False, Any),
        ("".join, False, Any),
        (dispatched, False, int | str),
        (charge, True, Item),
        (orders, True, Item),
        (cached, False, Item),
        (AsyncMock(), True, Any),
    ],
)
def test_whatever_can_be_called_is_described(fn: Any, is_async: bool, kind: Any) -> None:
    for _ in range(2):
        about = callee(fn)

        assert is_async == about.is_async
        if fn is dispatched:
            assert {int, str} == set(about.codec._annotation.__args__)
        else:
            assert codec_for(kind) is about.codec


def test_a_coroutine_is_what_an_annotated_plain_function_may_return() -> None:
    def later() -> Awaitable[Item]:
        return item("")

    assert callee(later).codec is codec_for(Item)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="markcoroutinefunction is of Python 3.12")
def test_a_marked_function_is_async_and_its_twin_is_not() -> None:
    def make() -> Callable[[], Any]:
        return lambda: asyncio.sleep(0)

    marked = inspect.markcoroutinefunction(make())  # type: ignore[attr-defined]

    assert callee(marked).is_async
    assert not callee(make()).is_async


@pytest.mark.parametrize(
    ("fn", "options"),
    [
        (number, set()),
        (word, {"timeout"}),
        (item, {"retry"}),
        (lambda **timeout: 1, set()),
        (Service().method, {"retry"}),
        (Service.fixed, set()),
        (functools.partial(word, timeout=5), set()),
        (functools.partial(word, 5), set()),
        (functools.partial(item, "x"), {"retry"}),
        (charge, {"timeout"}),
        (traced(charge), {"timeout"}),
    ],
)
def test_options_of_step_run_that_a_function_takes_itself_are_known(
    fn: Any, options: set[str]
) -> None:
    assert options == callee(fn).options


@pytest.mark.parametrize("fn", [5, None, "fetch"])
def test_what_cannot_be_called_is_refused(fn: Any) -> None:
    with pytest.raises(ConfigurationError, match="a step takes a function to call, not"):
        callee(fn)


async def test_a_call_in_place_of_a_function_is_refused_with_what_to_write() -> None:
    coroutine: Any = item("x")
    with pytest.raises(ConfigurationError, match=r"instead of step.run\(name, fetch\(url\)\)"):
        callee(coroutine)
    coroutine.close()


def test_closures_share_an_entry_and_are_not_kept_alive() -> None:
    class Big:
        pass

    def make(big: Any) -> Callable[[], Any]:
        return lambda: big

    callee(make(1))
    entries = len(module._known)
    big = Big()
    gone = weakref.ref(big)
    callee(make(big))
    del big
    gc.collect()

    assert entries == len(module._known)
    assert gone() is None


def test_the_memory_of_functions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", 3)
    for n in range(20):
        scope: dict[str, Any] = {}
        exec(f"def f(): return {n}", scope)
        callee(scope["f"])

    assert len(module._known) <= 3


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "why"),
    [
        (item, (), {}, r"item\(\) missing a required argument: 'name'"),
        (item, ("a", "b"), {}, r"item\(\) too many positional arguments"),
        (item, ("a",), {"nam": 1}, r"item\(\) got an unexpected keyword argument 'nam'"),
        (functools.partial(item, "a"), ("b",), {}, r"item\(\) too many"),
        (Service().method, (), {}, r"Service\.method\(\) missing a required argument: 'retry'"),
        (Item, (), {}, r"Item\(\) missing a required argument: 'name'"),
        (Service(), (), {}, r"Service\(\) missing a required argument: 'x'"),
        (len, (1, 2), {}, r"len\(\) too many positional arguments"),
        (charge, (), {}, r"charge\(\) missing a required argument"),
    ],
)
def test_a_call_that_cannot_work_is_told_apart_from_an_error_inside(
    fn: Any, args: Any, kwargs: Any, why: str
) -> None:
    assert re.match(why, check_call(fn, args, kwargs) or "")


@pytest.mark.parametrize(
    ("fn", "args"),
    [(item, ("a",)), (int, ("x",)), (dict, (1,)), (traced(item), ()), (print, ())],
)
def test_a_call_that_may_work_is_not_blamed(fn: Any, args: Any) -> None:
    """A decorator may pass arguments of its own, and not all builtins say what they take."""
    assert check_call(fn, args, {}) is None
