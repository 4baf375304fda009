"""The envelope of encoded values: what is one, what is none, and how it is described."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.envelope import (
    Envelope,
    described,
    described_start,
    envelope_of,
    read_envelope,
)
from openworkflow.core.errors import SerializationError
from openworkflow.core.serialization import codec_for

LABELS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))


def in_jsonb(text: str) -> str:
    """As PostgreSQL gives it back: shorter keys first, and a space after each colon and comma."""

    def ordered(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: ordered(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}

    return json.dumps(ordered(json.loads(text)), ensure_ascii=False)


@given(LABELS, st.binary())
def test_an_envelope_is_read_back_as_it_was_also_from_jsonb(labels: list[str], data: bytes) -> None:
    envelope = Envelope(tuple(labels), data)

    for text in (envelope.text(), in_jsonb(envelope.text())):
        assert read_envelope(text) == envelope
        assert envelope_of(json.loads(text)) == envelope


GOOD = {"v": 1, "by": ["zlib"], "data": "AAAA"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "$ow",
        ["$ow"],
        {},
        {"$ow": None},
        {"$ow": {}},
        {"$ow": GOOD, "more": 1},
        {"$ow": GOOD | {"more": 1}},
        {"$ow": GOOD | {"v": True}},
        {"$ow": GOOD | {"v": "1"}},
        {"$ow": GOOD | {"by": "zlib"}},
        {"$ow": GOOD | {"by": [1]}},
        {"$ow": GOOD | {"data": 7}},
        {"$ow": GOOD | {"data": "no base64"}},
        {"a": {"$ow": GOOD}},
    ],
    ids=repr,
)
def test_other_values_are_no_envelopes_and_are_stored_as_they_are(value: Any) -> None:
    text = codec_for(Any).encode(value, "result")

    assert envelope_of(value) is None
    assert read_envelope(text) is None
    assert described(value) is None
    assert codec_for(Any).decode(text) == value


def test_a_value_of_that_form_is_refused_wherever_it_comes_from() -> None:
    with pytest.raises(SerializationError, match=r"has the form of an encoded value.*another key"):
        codec_for(dict[str, Any]).encode({"$ow": GOOD}, "result")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["aes-gcm:k1"], "encrypted with key 'k1'"),
        (["zlib", "aes-gcm:k1"], "compressed, encrypted with key 'k1'"),
        (["aes-gcm:k1", "object:a/b"], "encrypted with key 'k1', kept in a store as 'a/b'"),
        (["rot13"], "encoded by 'rot13'"),
        (["rot13:twice"], "encoded by 'rot13' ('twice')"),
    ],
)
def test_people_are_told_what_a_value_is(labels: list[str], says: str) -> None:
    text = in_jsonb(Envelope(tuple(labels), b"x" * 9000).text())

    assert described(json.loads(text)) == says
    assert described_start(text[:4000]) == says


def test_a_newer_envelope_is_said_to_be_one() -> None:
    assert described({"$ow": GOOD | {"v": 2}}) == "encoded by a newer program, in version 2"


@pytest.mark.parametrize("text", ["", '"x"', '{"$ow": 1}', '{"$ow": {"v": 1, "by": ["zl'])
def test_what_is_no_envelope_or_is_cut_too_early_is_not_described(text: str) -> None:
    assert described_start(text) is None
