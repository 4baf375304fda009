"""Exceptions as data: any can be stored, and comes back in its own type where that is known."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.errors import NonRetryableError, StepFailed, StepTimeout
from openworkflow.core.failure import CHAIN_LIMIT, TEXT_LIMIT, Failure


class Declined(Exception):
    constructed = 0

    def __init__(self, code: int, *, card: str) -> None:
        super().__init__(f"declined with {code}")
        type(self).constructed += 1
        self.code, self.card, self.socket = code, card, object()


@dataclass
class OutOfStock(Exception):
    item: str
    left: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Picky(Exception):
    by_factory = True

    def __new__(cls, *args: Any) -> Picky:
        if not cls.by_factory:
            raise TypeError("made by its factory only")
        return super().__new__(cls, *args)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def stored(error: BaseException) -> Failure:
    return Failure.from_json(Failure.from_exception(raised(error)).to_json())


def test_an_error_comes_back_in_its_type_with_its_attributes() -> None:
    original = Declined(51, card="visa")
    made = Declined.constructed
    error = stored(original).rebuild()

    assert isinstance(error, Declined)
    assert (51, "visa", "declined with 51") == (error.code, error.card, str(error))
    assert made == Declined.constructed, "the class's own constructor must not run"


@pytest.mark.parametrize(
    "original",
    [
        ValueError("bad", 7),
        KeyError("missing"),
        FileNotFoundError(2, "No such file", "/nowhere"),
        OutOfStock("tea", 0),
        StepTimeout("too long"),
        NonRetryableError("never"),
        json.JSONDecodeError("bad", "{", 1),
    ],
)
def test_errors_of_many_makes_come_back_as_they_were(original: Exception) -> None:
    error = stored(original).rebuild()

    assert type(original) is type(error)
    assert str(original) == str(error)
    assert vars(original) == vars(error)


def test_what_is_rebuilt_now_and_after_storing_is_the_same() -> None:
    live = Failure.from_exception(raised(Declined(51, card="visa")))

    assert live == Failure.from_json(live.to_json())


@given(st.text(), st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists))
def test_any_error_can_be_stored(message: str, name: str, value: object) -> None:
    error = ValueError(message, value)
    vars(error)[name or "empty"] = value
    text = Failure.from_exception(raised(error)).to_json()

    text.encode()
    assert "\\u0000" not in text.replace("\\\\", "")
    json.loads(text, parse_constant=pytest.fail)
    assert Failure.from_exception(error) == Failure.from_json(text)


def test_a_huge_error_is_cut_to_what_can_be_kept() -> None:
    error = ValueError("x" * 10_000_000)
    error.add_note("y" * 10_000_000)
    failure = Failure.from_exception(raised(error))

    assert TEXT_LIMIT == len(failure.message)
    assert len(failure.traceback) <= TEXT_LIMIT
    assert len(failure.to_json()) < 4 * TEXT_LIMIT


def test_an_error_that_cannot_even_be_printed_is_stored_by_its_type() -> None:
    failure = stored(Unprintable())

    assert f"{__name__}:Unprintable" == failure.type
    assert failure.rebuild() is None


def test_causes_are_kept_and_rebuilt() -> None:
    error = RuntimeError("order failed")
    error.__cause__ = Declined(51, card="visa")
    rebuilt = stored(error).rebuild()

    assert rebuilt is not None
    assert isinstance(rebuilt.__cause__, Declined)


def test_a_ring_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    failure: Failure | None = stored(first)
    depth = 0
    while failure is not None:
        failure, depth = failure.cause, depth + 1

    assert CHAIN_LIMIT == depth


def test_a_step_that_failed_in_a_child_keeps_what_failed_it() -> None:
    inner = Failure("shop:Gone", "no more")
    error = stored(StepFailed("charge", 3, inner)).rebuild()

    assert isinstance(error, StepFailed)
    assert ("charge", 3, inner) == (error.step_name, error.attempts, error.failure)


def test_an_error_of_a_module_that_is_not_loaded_becomes_step_failed() -> None:
    error = Failure("somewhere.else:Boom", "it broke").reraisable("charge", 3)

    assert isinstance(error, StepFailed)
    assert "step 'charge' failed after 3 attempts: Boom: it broke" == str(error)
    assert "somewhere" not in sys.modules


def test_rebuilding_never_asks_a_module_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lazy")
    module.__getattr__ = lambda name: pytest.fail(f"asked for {name}")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", module)

    assert Failure("lazy:Boom", "").rebuild() is None


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "builtins:KeyboardInterrupt",
        "builtins:int",
        "nonsense",
        ":",
        "",
    ],
)
def test_only_exceptions_are_ever_rebuilt(name: str) -> None:
    assert Failure(name, "m", args=("echo",)).rebuild() is None


def test_a_class_that_refuses_to_be_made_becomes_step_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = stored(Picky("x"))
    monkeypatch.setattr(Picky, "by_factory", False)

    assert isinstance(failure.reraisable("charge", 1), StepFailed)


def test_a_reraised_error_says_which_step_it_comes_from() -> None:
    error = stored(ValueError("bad")).reraisable("charge", 3)

    assert ["in step 'charge', attempt 3"] == error.__notes__


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"text"', "5", "{}", '{"cause": 5}'])
def test_an_error_column_written_by_others_is_read_all_the_same(text: str) -> None:
    failure = Failure.from_json(text)

    assert failure.rebuild() is None
    assert failure.summary


def test_the_error_shape_of_other_programs_is_understood() -> None:
    failure = Failure.from_object({"name": "TypeError", "message": "x", "stack": "at y"})

    assert ("TypeError", "x", "at y") == (failure.type, failure.message, failure.traceback)


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt


def test_an_error_whose_own_methods_would_end_the_process_is_described_by_its_type() -> None:
    assert f"{__name__}:Hostile" == stored(Hostile()).type
