"""Values to JSON and back: what round-trips, what is refused, and in which words."""

from __future__ import annotations

import json
import sys
import typing
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict  # pydantic takes the one of typing from Python 3.12 on

from openworkflow.core.errors import (
    ConfigurationError,
    InputValidationError,
    PayloadTooLarge,
    SerializationError,
)
from openworkflow.core.serialization import Codec, codec_for


class Colour(Enum):
    RED = "red"
    BLUE = 3


class Size(StrEnum):
    SMALL = "s"


@dataclass(frozen=True)
class Item:
    name: str
    price: Decimal
    tags: frozenset[str] = frozenset()


@dataclass
class Order:
    id: UUID
    at: datetime
    items: list[Item] = field(default_factory=list)
    colour: Colour | None = None


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    user_id: int = pydantic.Field(alias="userId")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.user_id


class Point(NamedTuple):
    x: int
    y: float


class Movie(TypedDict):
    title: str
    year: int


ORDER = Order(
    UUID(int=7), datetime(2026, 1, 2, tzinfo=UTC), [Item("tea", Decimal("1.10"), frozenset("ab"))]
)

plain_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
plain = st.recursive(
    scalars | plain_text,
    lambda inner: st.lists(inner) | st.dictionaries(plain_text, inner),
    max_leaves=20,
)
anything = st.recursive(
    scalars | st.floats() | st.text() | st.binary() | st.dates() | st.just(object()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    codec = codec_for(Any)

    assert value == codec.decode(codec.encode(value, "input"))


@given(anything)
def test_what_is_encoded_without_annotation_is_json_that_jsonb_takes(value: Any) -> None:
    try:
        text = codec_for(Any).encode(value, "input")
    except SerializationError:
        return

    assert value == (None if text is None else json.loads(text, parse_constant=pytest.fail))
    assert "\\u0000" not in (text or "").replace("\\\\", "")


@given(
    st.builds(
        Order,
        id=st.uuids(),
        at=st.datetimes(timezones=st.just(UTC)),
        items=st.lists(
            st.builds(
                Item,
                name=plain_text,
                price=st.decimals(allow_nan=False, allow_infinity=False, places=2),
                tags=st.frozensets(plain_text, max_size=3),
            ),
            max_size=3,
        ),
        colour=st.none() | st.sampled_from(Colour),
    )
)
def test_a_dataclass_of_everything_comes_back_as_it_was(order: Order) -> None:
    codec = codec_for(Order)

    assert order == codec.decode(codec.encode(order, "input"))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 10**30),
        (bytes, b"text"),
        (date, date(2026, 1, 2)),
        (timedelta, timedelta(hours=1.5)),
        (Colour, Colour.BLUE),
        (Size, Size.SMALL),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (dict[int, str], {1: "a"}),
        (dict[UUID, Item], {UUID(int=1): Item("tea", Decimal(1))}),
        (Item | Movie, Item("tea", Decimal(1))),
        (Movie, {"title": "Alien", "year": 1979}),
        (Point, Point(1, 2.5)),
        (Aliased, Aliased(userId=5)),
        (list[Aliased] | None, [Aliased(userId=5)]),
        (Literal["a", 1], 1),
        (str, 'quote " and \\u0000 spelled out'),
        (Awaitable[Decimal], Decimal("1.5")),
        (Annotated[list[int], ["unhashable"]], [1]),
        (None, None),
    ],
)
def test_annotated_values_come_back_in_their_type(annotation: Any, value: Any) -> None:
    codec = codec_for(annotation)
    back = codec.decode(codec.encode(value, "result"))

    assert value == back
    assert type(value) is type(back)


def _ring() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, float("nan")]}, r"at a\.1 is nan"),
        (float("-inf"), "is -inf"),
        ({"a": "x\0"}, "at a holds a NUL character"),
        ({"a\0": 1}, "holds a NUL character"),
        (["\ud800"], "at 0 holds a lone surrogate"),
        ({"a": object()}, "at a is of type object.*annotate"),
        ([datetime(2026, 1, 1)], "at 0 is of type datetime.*annotate"),
        ({1: 2}, "has the key 1 of type int"),
        ({"a": {1, 2}}, "at a is of type set"),
        (Colour.RED, "is of type enum Colour"),
        (ORDER, "is of type Order.*annotate"),
        (b"\xff", "is of type bytes"),
        ([10**5000], "at 0 is an integer of more than 3900 digits"),
        (_ring(), "nested more than 100 levels deep, or contains itself"),
    ],
)
def test_what_plain_json_cannot_hold_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(SerializationError, match=f"^result of step 'a'.*{message}") as caught:
        codec_for(Any).encode(value, "result of step 'a'")

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "x", "does not fit int"),
        (int, None, "does not fit int"),
        (str, 5, "does not fit str"),
        (bytes, b"\xff", "holds bytes that are not UTF-8.*base64"),
        (float, float("nan"), "is nan"),
        (Decimal, Decimal("NaN"), "does not fit Decimal: .*finite"),
        (list[Item], [Item("\0", Decimal(1))], r"at 0\.name holds a NUL"),
        (Item, Item("\ud800", Decimal(1)), "at name holds a lone surrogate"),
        (Aliased, Aliased.model_construct(user_id="zz"), "does not fit Aliased: userId"),
        (dict, [1], "does not fit dict"),
        (dict[str, Any], {"a": date(2026, 1, 1)}, "at a is of type date"),
    ],
)
def test_what_would_not_come_back_by_its_annotation_is_refused(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(SerializationError, match=f"^result.*{message}"):
        codec_for(annotation).encode(value, "result")


def test_none_is_stored_as_null_where_the_annotation_allows_it() -> None:
    assert codec_for(Any).encode(None, "result") is None
    assert codec_for(int | None).encode(None, "result") is None
    assert codec_for(int | None).decode(None) is None


def test_the_limit_counts_bytes_not_characters() -> None:
    codec = codec_for(str)

    assert '"éé"' == codec.encode("éé", "input", limit=6)
    with pytest.raises(PayloadTooLarge, match="input is 6 bytes"):
        codec.encode("éé", "input", limit=5)


@pytest.mark.parametrize("value", ["x" * 10_000_000, {"a": ["y" * 2_000_000]}])
def test_a_payload_of_megabytes_is_refused(value: Any) -> None:
    with pytest.raises(PayloadTooLarge, match="1,048,576"):
        codec_for(Any).encode(value, "input")


@given(st.text(max_size=50), st.integers(0, 60))
def test_no_value_gets_past_its_limit(value: str, limit: int) -> None:
    try:
        text = codec_for(str).encode(value, "input", limit)
    except SerializationError:
        return

    assert len((text or "").encode()) <= limit


def test_an_input_that_does_not_fit_is_refused_with_the_path_of_the_field() -> None:
    shape = {"id": UUID(int=1), "at": datetime.now(UTC), "items": [{"name": "tea", "price": "x"}]}
    with pytest.raises(InputValidationError, match=r"^input\.items\.0\.price: ") as caught:
        codec_for(Order).validate(shape, "input")

    assert "input.items.0.price" == caught.value.path


def test_an_error_about_an_input_does_not_repeat_its_value() -> None:
    with pytest.raises(InputValidationError) as caught:
        codec_for(int).validate("hunter2", "input")

    assert "hunter2" not in str(caught.value)


def test_an_input_may_be_given_typed_or_in_its_json_shape() -> None:
    shape = json.loads(codec_for(Order).encode(ORDER, "input") or "")

    assert ORDER == codec_for(Order).validate(ORDER, "input")
    assert ORDER == codec_for(Order).validate(shape, "input")


def test_a_stored_value_that_no_longer_fits_says_so() -> None:
    with pytest.raises(SerializationError, match=r"stored value does not fit int: .*integer"):
        codec_for(int).decode('"x"')


def test_a_decoded_column_is_read_like_its_text() -> None:
    codec = codec_for(Item)
    text = codec.encode(ORDER.items[0], "result") or ""

    assert ORDER.items[0] == codec.validate_stored(json.loads(text))


def test_an_annotation_that_cannot_be_understood_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Codec("NoSuchType").validate(1, "input")


@pytest.mark.parametrize("annotation", [OrderedDict, OrderedDict[str, int]])
def test_an_ordered_dict_is_stored_in_the_order_of_jsonb_or_not_at_all(annotation: Any) -> None:
    codec: Codec[Any] = codec_for(annotation)
    kept: OrderedDict[str, int] = OrderedDict(a=1, zzz=2)

    assert kept == codec.as_replayed(kept, codec.encode(kept, "result"))
    with pytest.raises(SerializationError, match=r"OrderedDict in another order.*list of pairs"):
        codec.encode(OrderedDict(zzz=2, a=1), "result")


def test_an_ordered_dict_deep_in_a_value_is_told_by_its_place() -> None:
    @dataclass
    class Held:
        by_name: OrderedDict[str, int]

    codec = codec_for(list[Held])

    with pytest.raises(SerializationError, match=r"result at 0\.by_name would come back as an Ord"):
        codec.encode([Held(OrderedDict(zzz=2, a=1))], "result")


def test_an_ordered_dict_for_a_plain_dict_is_one() -> None:
    value = OrderedDict(zzz=2, a=1)

    assert '{"a":1,"zzz":2}' == codec_for(dict[str, int]).encode(value, "result")
    assert codec_for(Any).encode(value, "result")


def test_an_error_about_an_annotation_is_one_line() -> None:
    def converted(value: Any, extra: Any, more: Any, most: Any) -> Any:
        return value

    untaken = Annotated[int, pydantic.AfterValidator(converted)]
    with pytest.raises(ConfigurationError, match="cannot be used") as raised:
        codec_for(untaken)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it from there on")
def test_a_typed_dict_of_typing_is_refused_by_one_line_that_says_what_to_write() -> None:
    Film = typing.TypedDict("Film", {"name": str})  # noqa: UP013

    with pytest.raises(
        ConfigurationError, match=r"`typing_extensions\.TypedDict` instead"
    ) as raised:
        codec_for(Film)
    assert "\n" not in str(raised.value)


def test_codecs_are_made_once_and_keep_the_order_of_unions() -> None:
    assert codec_for(list[int]) is codec_for(list[int])
    assert codec_for(int | str) is not codec_for(str | int)


def test_what_looks_like_a_number_within_a_string_stays_and_floats_beside_it_are_kept() -> None:
    value = {
        '1e5\\"2e7': '-0.0 "3e8" \\\\',
        "\\": "4e9",
        "big": 1e300,
        "zero": -0.0,
        "hash": "12e34",
    }
    text = codec_for(Any).encode(value, "value")
    assert text is not None
    assert json.loads(text) == value
    assert "e300" not in text  # which jsonb would give back as an integer
    assert '"zero":0.0' in text
