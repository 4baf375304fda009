"""What an exception carries that is no plain JSON comes back, and brings no code with it."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from email.message import Message
from enum import Enum, Flag, StrEnum, auto
from types import ModuleType
from typing import Any, ClassVar
from urllib.error import HTTPError
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.error_values import read, write
from openworkflow.core.failure import TEXT_LIMIT, Failure


class Reason(Enum):
    LIMIT = object()
    STOLEN = "stolen"


@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Card:
    number: str
    limit: Money | None = None
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).made += 1


@dataclass
class Login:
    user: str
    password: str = field(repr=False)


@dataclass
class Account:
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Account({self.user})"


@dataclass(repr=False)
class Session(Account):
    pass


class Colour(StrEnum):
    RED = "red"


class Declined(Exception):
    def __init__(self, amount: Decimal, **more: Any) -> None:
        super().__init__("declined", amount)
        self.amount = amount
        vars(self).update(more)


MORE: dict[str, Any] = {
    "order": UUID("01a2202f-1821-786a-8d1c-96541ef8d394"),
    "at": datetime(2026, 11, 28, 9, 30, tzinfo=UTC),
    "day": date(2026, 11, 28),
    "hour": time(9, 30),
    "again_in": timedelta(days=-1, microseconds=7),
    "token": b"\0\xff",
    "parts": [Decimal("1.10"), {"rest": Decimal("0E-7")}],
    "tagged": {"$": Decimal(1)},
    "seen": {Decimal(1), Decimal(2)},
    "pair": (UUID(int=1), None),
    "reason": Reason.LIMIT,
    "colour": Colour.RED,
    "plain_pair": (1, 2),
    "by_number": {1: "one", None: [math.inf]},
    "card": Card("4711", Money(Decimal("9.90"))),
}


def stored(error: BaseException) -> Any:
    return Failure.from_json(Failure.from_exception(error).to_json()).rebuild()


def test_attributes_and_arguments_of_many_types_come_back() -> None:
    original = Declined(Decimal("9.90"), **MORE)
    made = Card.made
    error = stored(original)

    assert type(error) is Declined
    assert vars(error) == vars(original)
    assert error.args == ("declined", Decimal("9.90"))
    assert made == Card.made, "the code of a user must not run"


def test_what_is_rebuilt_now_and_after_storing_is_the_same() -> None:
    live = Failure.from_exception(Declined(Decimal(1), **MORE))
    assert live == Failure.from_json(live.to_json())


SCALARS = (
    st.none()
    | st.text()
    | st.integers()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes()
    | st.binary()
)


@given(st.recursive(SCALARS, lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert read(json.loads(json.dumps(write(value)))) == value


HIDDEN = [Login("ann", "hush"), Account("ann", "hush"), Session("ann", "hush")]


@pytest.mark.parametrize("value", [object(), 1j, *HIDDEN, HIDDEN, {1: object()}, sys])
def test_what_has_no_form_or_a_secret_is_left_out(value: object) -> None:
    failure = Failure.from_exception(Declined(Decimal(1), left=value, kept=1))
    error: Any = failure.rebuild()

    assert not hasattr(error, "left")
    assert (error.kept, error.amount) == (1, Decimal(1))
    assert "hush" not in failure.to_json().replace(failure.traceback, "")


class Frozen(Exception):
    """Refuses what is set, and has its code in a slot."""

    __slots__ = ("code",)
    code: int

    def __init__(self, code: int) -> None:
        super().__init__(code)
        object.__setattr__(self, "code", code)

    def __str__(self) -> str:
        return f"code {self.code}"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot assign to field {name!r}")

    def add_note(self, note: str, /) -> None:
        raise RuntimeError(note)


def test_an_error_that_refuses_what_is_set_comes_back_with_its_slots() -> None:
    failed = Frozen(51)
    BaseException.__setattr__(failed, "__context__", KeyError("card"))
    error: Any = Failure.from_exception(failed).reraisable("charge", 1)

    assert (type(error), error.code, str(error)) == (Frozen, 51, "code 51")
    assert isinstance(error.__cause__, KeyError)
    assert error.__notes__ == ["in step 'charge', attempt 1"]


def test_an_error_of_urllib_comes_back() -> None:
    failed = HTTPError("http://shop", 404, "not found", Message(), None)
    error: Any = Failure.from_exception(failed).reraisable("get", 1)

    assert (type(error), error.code) == (HTTPError, 404)
    assert error.__notes__ == ["in step 'get', attempt 1"]


def test_notes_that_are_no_list_keep_nobody_from_the_error() -> None:
    error = Failure.from_exception(Declined(Decimal(1), __notes__="text")).reraisable("charge", 1)

    assert error.__notes__ == ["in step 'charge', attempt 1"]


def test_what_is_raised_at_once_is_what_the_database_gives_back() -> None:
    parts = {"zz": 1e23, "b": -0.0, "aaa": {"yy": 1, "x": Decimal(1)}}
    error: Any = Failure.from_exception(Declined(Decimal(1), parts=parts, plain={"zz": 1, "b": 2}))
    live = error.rebuild()

    assert list(live.parts) == ["b", "zz", "aaa"]
    assert list(live.parts["aaa"]) == ["x", "yy"]
    assert list(live.plain) == ["b", "zz"]
    assert '"zz":100000000000000000000000.0' in error.to_json()
    assert math.copysign(1, live.parts["b"]) == 1


class Lazy:
    """What looks up what it stands for when it is asked for its class, as Django's do."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no database from here")

    @__class__.setter
    def __class__(self, other: Any) -> None:
        pass


@dataclass
class Record:
    order: int

    def __getattribute__(self, name: str) -> Any:
        if name == "order":
            raise RuntimeError("no database from here")
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return "Record()"


@pytest.mark.parametrize("make", [Lazy, lambda: Record(7), lambda: [Lazy()]])
def test_a_value_that_lets_nobody_look_at_it_costs_the_error_nothing_else(make: Any) -> None:
    value = make()
    failed = Declined(Decimal(1), left=value, kept=1)
    failed.args = ("declined", value)
    failure = Failure.from_exception(failed)
    error: Any = failure.rebuild()

    assert failure.message.startswith("('declined', ")
    assert error.args[0] == "declined"
    assert not hasattr(error, "left")
    assert (error.kept, error.amount) == (1, Decimal(1))


class Rights(Flag):
    READ = auto()
    WRITE = auto()
    OWN = auto()


@pytest.mark.parametrize("rights", [Rights.OWN, Rights.READ | Rights.WRITE, Rights(0)])
def test_flags_come_back_together(rights: Rights) -> None:
    error: Any = stored(Declined(Decimal(1), rights=rights))
    assert error.rights is rights


def test_a_flag_that_is_gone_is_left_out() -> None:
    with pytest.raises(ValueError):
        read({"$": ["flags", f"{__name__}:Rights", ["READ", "GONE"]]})
    with pytest.raises(ValueError):
        read({"$": ["flags", f"{__name__}:Reason", ["STOLEN"]]})


@pytest.mark.parametrize("large", ["x" * 10**5, b"x" * 10**5, [0] * 10**5, [[Decimal(0)] * 10**5]])
def test_what_is_too_large_to_keep_is_not_written_to_find_that_out(
    monkeypatch: pytest.MonkeyPatch, large: Any
) -> None:
    """A hundred megabytes took thirteen seconds, on the loop of all runs."""
    seen: list[Any] = []

    def dumps(value: Any, _dumps: Any = json.dumps, **options: Any) -> str:
        seen.append(value)
        return _dumps(value, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(json, "dumps", dumps)
    failed = Declined(Decimal(1), large=large, __notes__=[large])
    failed.args = (large,)
    error: Any = Failure.from_exception(failed).rebuild()

    assert not hasattr(error, "large")
    assert all(large is not each and large not in (each, *args_of(each)) for each in seen)


def args_of(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def test_an_older_program_reads_what_it_read_before() -> None:
    row = json.loads(Failure.from_exception(Declined(Decimal(1), code=51)).to_json())

    assert row["args"] == ["declined", "Decimal('1')"]
    assert row["state"] == {"code": 51}


def test_a_large_attribute_costs_the_others_nothing() -> None:
    error = stored(Declined(Decimal(1), large=[Decimal("1.1")] * TEXT_LIMIT, small=Decimal(2)))
    assert not hasattr(error, "large")
    assert error.small == Decimal(2)


def test_a_class_that_is_not_loaded_or_has_changed_leaves_its_attribute_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = Failure.from_exception(Declined(Decimal(1), card=Card("1"), reason=Reason.STOLEN))
    asked: list[str] = []

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    lazy = Lazy(__name__)
    lazy.Declined = Declined  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, __name__, lazy)
    error: Any = failure.rebuild()

    assert (hasattr(error, "card"), hasattr(error, "reason")) == (False, False)
    assert error.amount == Decimal(1)
    assert not asked, "nothing is imported because a row says so"


def test_a_dataclass_that_has_gained_a_default_and_lost_a_field_is_read() -> None:
    """As a result of a step is, which another version of the program has written."""
    parts = {"amount": {"$": ["Decimal", "9.90"]}, "gone": 1, "__class__": 1}
    assert read({"$": ["dataclass", f"{__name__}:Money", parts]}) == Money(Decimal("9.90"))


@pytest.mark.parametrize(
    "written",
    [
        {"$": []},
        {"$": 7},
        {"$": ["os:system", "true"]},
        {"$": ["Decimal", "1", "2"]},
        {"$": ["Decimal", {"a": 1}]},
        {"$": ["UUID", "x"]},
        {"$": ["timedelta", [10**12, 0, 0]]},
        {"$": ["enum", "os:system", "x"]},
        {"$": ["enum", f"{__name__}:Reason", "GONE"]},
        {"$": ["enum", f"{__name__}:Reason", []]},
        {"$": ["dataclass", "subprocess:Popen", {"args": "true"}]},
        {"$": ["dataclass", f"{__name__}:Money", {"currency": "EUR", "__class__": 1}]},
        {"$": ["float", "one"]},
        {"$": ["pairs", [[{}, 1]]]},
        {"$": ["dataclass", f"{__name__}:Declined", {}]},
        {"$": ["set", [[1]]]},
        {"$": ["tuple", 7]},
        {"$": ["dict", [1]]},
        {"$": ["bytes", "é"]},
    ],
)
def test_a_row_that_says_something_else_makes_nothing(written: Any) -> None:
    with pytest.raises(ValueError):
        read(written)
    failure = Failure(f"{__name__}:Declined", "m", typed={"amount": written, "9": 1, "x": 1})
    error: Any = failure.rebuild()
    assert not hasattr(error, "amount")
    assert error.x == 1
