"""Text that others wrote, safe to show: no character of it moves a cursor or hides another."""

import json
import re
from typing import Any

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_SUSPECT = re.compile(r"[^\x20-\x7e]")
"""Whatever is not plainly printable; of these most are, such as letters with accents."""


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with every character that shows nothing by itself as an escape, such as `\\x1b`.

    So are control characters, marks that turn the direction of writing, and, unless `lines`,
    the ends of lines.
    """
    if lines:
        return "\n".join(printable(line) for line in text.split("\n"))
    return _SUSPECT.sub(lambda found: _escaped(found[0]), text)


def printable_json(value: Any, default: Any = None) -> str:
    """A JSON document on one line, letters of any script as they are, the rest escaped."""
    text = json.dumps(value, default=default, ensure_ascii=False)
    # Without an indent, only strings hold such characters.
    return _SUSPECT.sub(lambda found: _escaped_in_json(found[0]), text)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if (short := _SHORT.get(character)) is not None:
        return short
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _escaped_in_json(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]
