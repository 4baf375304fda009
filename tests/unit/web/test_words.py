"""How times, lengths and values are written on a page."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from openworkflow.core.filters import parse_filter, quoted
from openworkflow.web import words


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, ""),
        (-1, "0 ms"),
        (0.0401, "40 ms"),
        (0.9996, "1 s"),
        (1.25, "1.2 s"),
        (59.96, "1 min"),
        (184, "3 min 4 s"),
        (3599.9, "1 h"),
        (3600 * 2.5, "2 h 30 min"),
        (86399, "1 d"),
        (7 * 86400, "7 d"),
        (86400 * 400.5, "400 d"),
        (86400 * 12345, "12,345 d"),
    ],
)
def test_a_length_is_in_the_unit_that_suits_it(seconds: float | None, written: str) -> None:
    assert written == words.length(seconds)


def test_a_moment_that_never_comes_is_said_to() -> None:
    assert "never" == words.moment(datetime(9999, 12, 30, tzinfo=UTC))
    assert "" == words.between(datetime(2026, 1, 1, tzinfo=UTC), None)


def test_a_count_that_stopped_says_so() -> None:
    assert ("9,999", "10,000+") == (words.number(9999, 10_000), words.number(10_000, 10_000))


def test_what_cannot_be_seen_is_escaped_and_what_is_too_long_is_cut() -> None:
    assert '"a\\u202eb"' == words.value("a\u202eb")
    assert "a\\x1bb\nc" == words.plain("a\x1bb\nc")
    assert "a b…" == words.short("a\n b cdef", 4)
    assert words.value("x" * 100_000).endswith("more characters")
    assert len(words.value({"k": ["x" * 1000] * 1000})) < words.SHOWN + 100


@pytest.mark.parametrize("text", ["order", 'a "b"', "c\\", "d:e f", "ä,ö"])
def test_a_quoted_value_is_read_as_it_was(text: str) -> None:
    (term,) = parse_filter(f"workflow:{quoted(text)}")

    assert (text,) == term.values
