"""The filter language: what it says, and what it refuses, in a line that says where."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.filters import FIELDS, Term, parse_filter

ID = UUID(int=7)


def term(field: str, operator: Any, *values: Any, path: tuple[str, ...] = ()) -> Term:
    return Term(field, path, operator, values, negated=False)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (" \n ", []),
        ("status:failed", [term("status", ":", "failed")]),
        ("status:failed,canceled", [term("status", ":", "failed", "canceled")]),
        ("tag.customer:acme", [term("tag", ":", "acme", path=("customer",))]),
        ("tag.a.b:c", [term("tag", ":", "c", path=("a.b",))]),
        ("input.order.id:42", [term("input", ":", "42", path=("order", "id"))]),
        ('error~"time out"', [term("error", "~", "time out")]),
        (r'error~"a \"b\" \\ c"', [term("error", "~", 'a "b" \\ c')]),
        ("started>2h", [term("started", ">", timedelta(hours=2))]),
        ("created<2026-11-01", [term("created", "<", datetime(2026, 11, 1, tzinfo=UTC))]),
        ("attempts>3 paused:yes", [term("attempts", ">", 3.0), term("paused", ":", True)]),
        (f"id:{ID}", [term("id", ":", ID)]),
        ("-workflow:a,b", [Term("workflow", (), ":", ("a", "b"), negated=True)]),
        ("workflow:a:b>c~d", [term("workflow", ":", "a:b>c~d")]),
        (f"{ID} status:failed", [term("id", ":", ID), term("status", ":", "failed")]),
        (f"-{ID}", [Term("id", (), ":", (ID,), negated=True)]),
    ],
)
def test_what_a_filter_says(text: str, terms: list[Term]) -> None:
    assert tuple(terms) == parse_filter(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("statsu:failed", "did you mean 'status'?"),
        ("tga.customer:a", "did you mean 'tag.NAME'?"),
        ("frob:1", "there is no field 'frob'; there are status, workflow"),
        ("status:faild", "did you mean 'failed'?"),
        ("status:x", "the statuses are pending, running"),
        ("status:sleeping", "it is where a run stands, and no status: pending, running"),
        ("status~fail", "'status' is a status; after it comes :"),
        ("workflow:a status", "at 'status': 'status' is a status; after it comes :"),
        ("created:2h", "after it comes > or <"),
        ("started>soon", "'soon' does not fit: it is an age, such as 90s, 2h or 7d, or a moment"),
        ("workflow=alpha", "have a colon between them: workflow:alpha"),
        ("status==failed", "have a colon between them: status:failed"),
        ("tag.customer=acme", "have a colon between them: tag.customer:acme"),
        ("input.customer=7", "have a colon between them: input.customer:7"),
        ("state:failed", "did you mean 'status'?"),
        ("name:order", "did you mean 'workflow'?"),
        ("started>2026-99-99", "does not fit: it is a time"),
        ("attempts:many", "does not fit: it is a number"),
        ("attempts:nan", "does not fit"),
        ("paused:maybe", "does not fit: it is yes or no"),
        ("id:7", "does not fit: it is an id"),
        ("tag.:a", "there is no field 'tag.'"),
        ("tag.a b:c", "after it comes : or ~"),
        ("workflow:", "a value is missing"),
        ('workflow:"a', "a value is missing, or a quotation mark"),
        ('workflow:"a"b', "between terms there is a space"),
        ("workflow:a,", "a value is missing"),
        ("-", "a term is a field"),
        (":a", "a term is a field"),
        ("workflow:a\0", "does not fit"),
    ],
)
def test_what_it_refuses(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_filter(text)

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_its_size_is_limited() -> None:
    for text in ("a" * 10_001, "status:failed " * 51):
        with pytest.raises(ConfigurationError, match="at most"):
            parse_filter(text)


WORDS = st.sampled_from(
    [*FIELDS, "tag.a", "input.a.b", "-", ":", "~", ">", "<", ",", '"', "\\", " ", "2h"]
)


@given(st.lists(WORDS | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert all(each.values for each in parse_filter(text))


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_any_text_can_be_said_in_quotation_marks(values: list[str]) -> None:
    quoted = ",".join('"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)

    (found,) = parse_filter(f"workflow:{quoted}")

    assert tuple(values) == found.values
