"""Text that others wrote: nothing of it is obeyed by a terminal, and nothing of it is lost."""

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.printable import printable, printable_json
from openworkflow.telemetry.logs import HumanFormatter

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.text())
def test_what_is_shown_is_printable_and_says_which_character_it_was(text: str) -> None:
    assert printable(text).isprintable()
    assert text == printable(text) or not text.isprintable()
    assert text.count("\n") == printable(text, lines=True).count("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 東京 🎉", "Grüße, 東京 🎉"),
        ("[/var/log/x] [bold]:smile:", "[/var/log/x] [bold]:smile:"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("a\tb\rc\nd", r"a\tb\rc\nd"),
        ("\u202eevil", r"\u202eevil"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
    ],
)
def test_characters_that_show_nothing_are_escapes(text: str, shown: str) -> None:
    assert shown == printable(text)


@given(JSON)
def test_a_json_document_means_what_it_meant_and_is_one_printable_line(value: Any) -> None:
    shown = printable_json(value)

    assert shown.isprintable()
    assert json.loads(json.dumps(value)) == json.loads(shown)


def test_logs_for_people_are_obeyed_by_no_terminal() -> None:
    """A workflow's name, or an error's text, may come from whoever starts runs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter())
    logger = logging.Logger("of the test")
    logger.addHandler(handler)

    try:
        raise ValueError("two\nlines \x1b]0;title\x07")
    except ValueError:
        logger.exception("workflow %s", "\x1b[2J")

    assert r"workflow \x1b[2J" in stream.getvalue()
    assert "two\nlines " + r"\x1b]0;title\x07" in stream.getvalue()
    assert stream.getvalue().replace("\n", "").isprintable()
