"""A result that its annotation would change on the way through JSON is refused, with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pydantic
import pytest
from typing_extensions import TypedDict

from openworkflow.core.errors import SerializationError
from openworkflow.core.serialization import codec_for

AT = datetime(2026, 1, 2, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Movie(TypedDict):
    title: str


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str


@dataclass
class Puppy(Dog):
    months: int = 0


@dataclass
class Box:
    content: Any = None
    owner: Dog | None = None
    opened: int = field(default=0, compare=False)


@dataclass(eq=False)
class Incomparable:
    at: int


class Account(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field(default="", exclude=True)
    _cache: int = pydantic.PrivateAttr(default=0)


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr


class Premium(Account):
    discount: int = 10


def first_letters(text: str) -> str:
    return text[:3]


Short = Annotated[str, pydantic.PlainSerializer(first_letters)]


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (pydantic.SecretStr, pydantic.SecretStr("x"), "come back as another SecretStr"),
        (Secretive, Secretive(password=pydantic.SecretStr("x")), "at password would come back"),
        (Account, Account(name="a", token="t"), "at token would come back as another str"),
        (Short, "abcdef", "as another str"),
        (Account, Premium(name="a"), "as Account instead of Premium"),
        (list[Account], [Premium(name="a")], "at 0 would come back as Account instead of Premium"),
        (Dog, Puppy("rex", 3), "as Dog instead of Puppy"),
        (Cat | Dog, Dog("rex"), "as Cat instead of Dog"),
        (UUID | str, str(UUID(int=1)), "as UUID instead of str"),
        (date | str, "2026-01-02", "as date instead of str"),
        (Movie, {"title": "Alien", "year": 1979}, "at year would come back as NoneType"),
        (Box, Box({1: "a"}), r"at content\.1 would come back"),
        (Box, Box(AT), "at content would come back as str instead of datetime"),
        (Box, Box({1, 2}), "at content would come back as list instead of set"),
        (Box, Box(Point(1, 2)), "at content would come back as list instead of Point"),
        (Box, Box(Colour.RED), "at content would come back as str instead of Colour"),
        (Box, Box(owner=Puppy("rex", 3)), "at owner would come back as Dog instead of Puppy"),
        (dict[str | int, int], {1: 1, "1": 2}, "would come back as"),
        (str, UUID(int=1), "as str instead of UUID"),
        (str, Colour.RED, "as str instead of Colour"),
        (float, Decimal("0.1"), "as float instead of Decimal"),
        (date, datetime(2026, 1, 2), "as date instead of datetime"),
        (
            datetime,
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(seconds=30))),
            "another datetime",
        ),
        (Iterable[int], [1, 2], "as an iterator, which can be read only once"),
        (Iterator[int], iter([1, 2]), "is of type list_iterator"),
        (Any, Point(1, 2), "is of type Point, which plain JSON cannot hold"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(SerializationError, match=f"^result.*{message}") as caught:
        codec_for(annotation).encode(value, "result")

    assert "annotate the function" in str(caught.value)


def test_a_type_that_an_annotation_cannot_name_is_said_to_be_in_the_wrong_place() -> None:
    """The function was annotated with it: text, which says nothing outside of where it was made."""

    @dataclass
    class Local:
        number: int

    with pytest.raises(SerializationError, match="at the top of its module"):
        codec_for(Any).encode(Local(1), "result")


@pytest.mark.parametrize(
    ("annotation", "value", "back"),
    [
        (float, 3, 3.0),
        (float, 10**30, 1e30),
        (Decimal, 5, Decimal(5)),
        (int, "5", 5),
        (datetime, "2026-01-02T00:00:00Z", AT),
        (Cat, {"name": "tom"}, Cat("tom")),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (list[int], {1}, [1]),
        (set[int], [1, 1], {1}),
        (Any, (1, [2, (3,)]), [1, [2, [3]]]),
        (Any, Level.LOW, 1),
        (Box, Box((1, 2)), Box([1, 2])),
        (Box, Box(opened=3), Box()),
        (list[Dog], (Dog("a"),), [Dog("a")]),
        (UUID | str, "no id", "no id"),
        (str | UUID, UUID(int=1), UUID(int=1)),
        (Account, Account(name="a"), Account(name="a")),
    ],
)
def test_an_annotation_may_convert_what_it_keeps_whole(
    annotation: Any, value: Any, back: Any
) -> None:
    codec = codec_for(annotation)
    replayed = codec.as_replayed(value, codec.encode(value, "result"))

    assert back == replayed
    assert type(back) is type(replayed)


def test_private_attributes_and_values_that_cannot_be_compared_are_let_through() -> None:
    account = Account(name="a")
    account._cache = 5

    for value in (account, Incomparable(1)):
        assert codec_for(type(value)).encode(value, "result")
