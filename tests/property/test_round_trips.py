"""What the first execution goes on with is what every replay decodes, held against a real jsonb.

Hypothesis makes up values of many annotations. Each is encoded, sent through PostgreSQL's jsonb and
decoded; `as_replayed` must have said so before, to the type of each part and the order of each
dict.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pydantic
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from openworkflow.core.errors import SerializationError
from openworkflow.core.serialization import codec_for

BATCH = 25
JSONB = (
    "SELECT value::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS t(value, n) ORDER BY n"
)


class Level(IntEnum):
    LOW = 1
    HIGH = 10**20


class Colour(Enum):
    RED = "red"
    BLUE = 3


class Point(NamedTuple):
    x: int
    y: float


class Movie(TypedDict, total=False):
    title: str
    year: int
    ratings: dict[str, float]


@dataclass
class Parcel:
    weight: float
    labels: dict[str, int] = field(default_factory=dict)
    anything: Any = None
    by_number: dict[int, Decimal] = field(default_factory=dict)


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    at: datetime
    note: Any = None
    parcels: list[Parcel] = []


@dataclass
class Base:
    name: str


@dataclass
class Derived(Base):
    secret: int = 0


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
keys = st.sampled_from(["b", "a", "aa", "Z", "é", "ä", "zz", "日本", "😀", "10", "9", ""]) | text
edges = st.sampled_from(
    [-0.0, 0.0, 5e-324, 1.7e308, -1.7e308, 1e15, 1e16, 1e17, 1e22, 1e23, 123456789012345680.0]
) | st.sampled_from([1e-7, 1e-5, 0.1, 3.0, 2.0**53, 1.5e300, -1e16])
floats = edges | st.floats(allow_nan=False, allow_infinity=False)
integers = st.sampled_from([0, 2**53, 10**16, 10**22, -(10**40)]) | st.integers()
scalars = st.none() | st.booleans() | integers | floats | text | st.sampled_from(["1e5", "-0.0"])
plain = st.recursive(
    scalars | st.sampled_from(Level),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=12,
)
messy = plain | st.sets(integers, max_size=3) | st.dates() | st.dictionaries(integers, integers)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
times = st.datetimes(timezones=st.just(UTC))
parcels = st.builds(
    Parcel,
    weight=floats | integers.filter(lambda n: abs(n) < 10**300),
    labels=st.dictionaries(keys, integers, max_size=5),
    anything=messy,
    by_number=st.dictionaries(integers, decimals, max_size=5),
)
movies = st.fixed_dictionaries(
    {},
    optional={"year": integers, "title": text, "ratings": st.dictionaries(keys, floats)},
)


def loose(extra: dict[str, Any], **fields: Any) -> Loose:
    return Loose(**{f"x{key}": value for key, value in extra.items()}, **fields)


SAMPLES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, messy),
    (object, plain),
    (dict[str, Any], st.dictionaries(keys, plain, max_size=6)),
    (list[Any], st.lists(plain, max_size=4)),
    (bool, st.booleans()),
    (int, integers | st.sampled_from(Level) | st.booleans()),
    (float, floats | st.integers(-(10**30), 10**30)),
    (str, text),
    (Decimal, decimals | st.integers(-99, 99) | floats),
    (int | float | None, integers | floats | st.none()),
    (float | int | bool, integers | floats | st.booleans()),
    (str | int, text | integers),
    (UUID | str, st.uuids() | text | st.uuids().map(str)),
    (date | datetime | str, st.dates() | times | text | st.dates().map(str)),
    (dict[int, list[float]], st.dictionaries(integers, st.lists(floats, max_size=3))),
    (dict[float, int], st.dictionaries(floats, integers, max_size=5)),
    (dict[str | int, int], st.dictionaries(keys | st.integers(0, 12), integers)),
    (dict[UUID, Any], st.dictionaries(st.uuids(), plain, max_size=3)),
    (dict[date, timedelta], st.dictionaries(st.dates(), st.timedeltas(), max_size=4)),
    (set[int], st.sets(integers)),
    (frozenset[str], st.frozensets(text)),
    (tuple[int, float], st.tuples(integers, floats)),
    (list[tuple[str, Any]], st.lists(st.tuples(text, messy), max_size=3)),
    (Point, st.builds(Point, integers, floats)),
    (Movie, movies | st.just({"title": "Alien", "director": "Scott"})),
    (Colour | None, st.none() | st.sampled_from(Colour)),
    (Parcel, parcels),
    (dict[str, Parcel] | None, st.none() | st.dictionaries(keys, parcels, max_size=3)),
    (Base, st.builds(Base, text) | st.builds(Derived, text, integers)),
    (Base | Derived, st.builds(Base, text) | st.builds(Derived, text, integers)),
    (pydantic.RootModel[dict[str, float]], st.dictionaries(keys, floats, max_size=5).map(
        pydantic.RootModel[dict[str, float]]
    )),
    (
        Loose,
        st.builds(
            loose,
            st.dictionaries(keys, plain, max_size=4),
            at=times,
            note=messy,
            parcels=st.lists(parcels, max_size=2),
        ),
    ),
]  # fmt: skip

samples = st.sampled_from(SAMPLES).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


@pytest.fixture
def jsonb(database_url: str) -> Iterator[Any]:
    """Sends texts through jsonb, all in one statement."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_url))

        def there_and_back(texts: list[str]) -> list[str]:
            return [row["value"] for row in runner.run(connection.fetch(JSONB, texts))]

        yield there_and_back
        runner.run(connection.close())


def test_the_first_execution_sees_what_replays_see_or_the_value_is_refused(jsonb: Any) -> None:
    tried = {"stored": 0, "refused": 0}

    # A failure names its one value out of the batch; shrinking would ask the database for minutes.
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.lists(samples, min_size=BATCH, max_size=BATCH))
    def check(batch: list[tuple[Any, Any]]) -> None:
        stored = []
        for annotation, value in batch:
            codec = codec_for(annotation)
            try:
                text = codec.encode(value, "result")
            except SerializationError:
                tried["refused"] += 1
                continue
            first = codec.as_replayed(value, text)
            if text is None:
                assert shape(codec.decode(None)) == shape(first)
            else:
                stored.append((annotation, value, first, text))
        tried["stored"] += len(stored)
        for (annotation, value, first, _), text in zip(
            stored, jsonb([each[-1] for each in stored]), strict=True
        ):
            codec = codec_for(annotation)
            assert shape(codec.decode(text)) == shape(first), (annotation, value, text)
            # The client reads outputs that were decoded as columns.
            assert shape(codec.validate_stored(json.loads(text))) == shape(first)

    check()

    assert tried["stored"] > 3 * tried["refused"] > 0


def test_floats_and_keys_come_back_as_python_wrote_them(jsonb: Any) -> None:
    values = [1e16, 1e22, 1.5e300, 1.7e308, 5e-324, 1e-7, -0.0, 3.0, {"bb": 1, "a": 2, "é": 3}]
    codec = codec_for(Any)
    texts = [codec.encode(value, "result") or "" for value in values]

    back = [codec.decode(text) for text in jsonb(texts)]

    assert values == back
    assert [type(value) for value in values] == [type(value) for value in back]
    assert ["a", "bb", "é"] == list(back[-1])
    assert "0.0" == str(back[6])


def shape(value: Any) -> Any:
    """All that a program can tell of a value: types, numbers to the digit, the order of dicts."""
    kind = type(value).__qualname__
    if isinstance(value, dict):
        return kind, [(shape(key), shape(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return kind, [shape(each) for each in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(shape(each)) for each in value)
    if isinstance(value, pydantic.BaseModel):
        return kind, shape(dict(value)), sorted(value.model_fields_set)
    if is_dataclass(value):
        return kind, [shape(getattr(value, each.name)) for each in fields(value)]
    return kind, repr(value)
