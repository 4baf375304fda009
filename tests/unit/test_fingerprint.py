"""The fingerprint of a call: the same in every process, another for other arguments."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, NoReturn
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.fingerprint import LONGEST, fingerprint


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Item:
    name: str
    tags: Any = None


@dataclass
class Basket:
    items: list[str]


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    number: int


class Draft(pydantic.BaseModel):
    number: int


class Hostile:
    def __repr__(self) -> NoReturn:
        raise SystemExit

    __hash__ = __repr__
    __eq__ = __repr__  # type: ignore[assignment]
    __iter__ = __str__ = __len__ = __repr__


@dataclass(frozen=True)
class Broken:
    name: str = "a"

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


def send(*args: Any, **kwargs: Any) -> None: ...


def other() -> None: ...


def of(*args: Any, **kwargs: Any) -> str:
    return fingerprint(send, args, kwargs)


def another_order(items: set[Any]) -> set[Any]:
    """An equal set that was filled from the other end: its items may come in another order."""
    made: set[Any] = set()
    for each in reversed(list(items)):
        made.add(each)
    return made


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**70, 1.0, -0.0, float("inf"), "", "1", "é", "\ud800", b"1",
    [], [1], [[1]], [1, 2], (1, 2), {}, {"a": 1}, {"b": 1}, {1: "a"}, {"a": {"a": 1}}, {1, 2}, {1},
    date(2026, 1, 2), datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), time(1), timedelta(1),
    Decimal("1.0"), Decimal("1.00"), UUID(int=1), PurePosixPath("/a"), Colour.RED, Colour.BLUE,
    Item("a"), Item("b"), Item("a", [1]), Order(number=1), Order(number=2),
    Order.model_validate({"number": 1, "extra": 1}), Hostile(), object(), send, other, Item,
    functools.partial(send, 1), functools.partial(send, 2), Item("a").__eq__,
]  # fmt: skip


def test_other_values_have_other_fingerprints() -> None:
    prints = [of(value) for value in VALUES]

    assert len(VALUES) == len(set(prints))
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in prints)


def test_arguments_are_told_apart_by_place_and_by_name() -> None:
    calls = [of(1, 2), of(2, 1), of([1, 2]), of(1, b=2), of(1, c=2), of("ab"), of("a", "b"), of()]

    assert len(calls) == len(set(calls))
    assert of(a=1, b=2) == of(b=2, a=1)
    assert fingerprint(send, (), {}) != fingerprint(other, (), {})


def test_the_order_of_dicts_and_their_class_do_not_count() -> None:
    assert of({"a": 1, "b": [2]}) == of({"b": [2], "a": 1})
    assert of({"a": 1}) == of(OrderedDict(a=1)) == of(defaultdict(int, a=1))


@given(st.sets(st.text() | st.integers() | st.binary()))
def test_the_order_of_sets_does_not_count(items: set[Any]) -> None:
    assert of(items) == of(another_order(items)) == of(frozenset(items))


def test_what_has_no_value_counts_by_its_type() -> None:
    assert of(object()) == of(object())
    assert of(Hostile()) == of(Hostile())
    assert of(lambda: 1) == of(lambda: 2)


def test_objects_that_change_count_by_their_class_whatever_they_hold() -> None:
    """A step may have changed its argument in place, which no replay does again."""
    assert of(Basket(["tea"])) == of(Basket([]))
    assert of(Draft(number=1)) == of(Draft(number=2))
    assert of(Basket([])) != of(Draft(number=1))


def test_a_bound_method_counts_by_the_class_of_what_it_is_bound_to() -> None:
    """A client, a session: two processes never hold the same one."""
    prints = {fingerprint(Item(name).__repr__, (), {}) for name in "ab"}

    assert 1 == len(prints)
    assert prints.isdisjoint({fingerprint(Basket([]).__repr__, (), {})})


def test_nothing_makes_it_fail() -> None:
    ring: list[Any] = []
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    for value in (ring, deep, Broken(), [Hostile()], {Hostile: Hostile()}, "x" * 10**6):
        assert of(value) == of(value)


def test_long_arguments_are_looked_at_up_to_a_bound() -> None:
    assert of("x" * 10**6) != of("x" * (10**6 + 1))
    assert of({"a": "x" * 10**6, "b": 1}) == of({"b": 1, "a": "x" * 10**6})
    assert of(list(range(LONGEST))) == of([*range(LONGEST - 1), -1])
    many = {str(n) for n in range(LONGEST)}
    assert of(many) == of(another_order(many))


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_another_process_comes_to_the_same(seed: str) -> None:
    program = (
        "from openworkflow.core.fingerprint import fingerprint\n"
        "def send(): ...\n"
        "args = ({'a', 'b', 'c', 1, None}, {'z': 1, 'y': {'x', 'w'}}, 1.5, 'é')\n"
        "print(fingerprint(send, args, {'k': frozenset('abc')}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    args = ({"a", "b", "c", 1, None}, {"y": {"w", "x"}, "z": 1}, 1.5, "é")

    assert fingerprint(send, args, {"k": frozenset("abc")}) == done.stdout.strip()
