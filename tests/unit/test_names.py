"""Names that the database stores: one rule, whose messages say what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text, valid_build_id


@pytest.mark.parametrize("text", [None, 5, b"a", "", "a\0b", "\ud800", "k" * 11, "é" * 11])
def test_what_cannot_be_a_name_is_refused_by_what_it_is_for(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^a key must be text of 1 to 10 characters with"):
        storable_text("a key", text, 10)


def test_a_limit_in_bytes_counts_bytes_and_says_how_many_there_are() -> None:
    assert "é" * 5 == storable_text("schema", "é" * 5, 10, unit="bytes")
    with pytest.raises(ConfigurationError, match=r"1 to 10 bytes .*, which has 12$"):
        storable_text("schema", "é" * 6, 10, unit="bytes")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_other_text_is_returned_as_it_is(text: str) -> None:
    assert text is storable_text("a key", text, len(text))


def test_where_names_are_shown_to_people_they_may_hold_no_line_breaks() -> None:
    assert "a\nb" == storable_text("a step's name", "a\nb", 10)
    with pytest.raises(ConfigurationError, match="without invisible characters, not 'a"):
        storable_text("a patch's name", "a\nb", 10, printable=True)


def test_a_subclass_of_str_is_no_name() -> None:
    class Name(str):
        __slots__ = ()

    with pytest.raises(ConfigurationError, match="must be text"):
        storable_text("a key", Name("a"), 10)


@pytest.mark.parametrize("build_id", ["", "a b", "é", "x" * 129, 5, "a\n"])
def test_a_build_id_is_what_a_label_and_a_url_can_carry(build_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="a build id is 1 to 128 letters, digits and"):
        valid_build_id(build_id)
    assert "sha256:0a@v1/x+y" == valid_build_id("sha256:0a@v1/x+y")
