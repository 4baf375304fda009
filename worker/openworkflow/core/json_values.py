"""What JSON text, and PostgreSQL's jsonb after it, can hold of plain Python values.

Stricter than the standard library's `json`: what would come back as something else (a datetime as
text, a key 1 as "1", NaN as null) is a problem here, not a conversion.
"""

import json
from collections.abc import AsyncGenerator, Generator, Iterable
from enum import Enum
from inspect import isawaitable
from typing import Any

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

DEEPEST = 100
"""The most levels of nesting; the JSON parsers of pydantic stop at 200."""
LARGEST_BITS = 13_000
"""The most bits of an integer: Python reads back at most 4300 digits."""

_SHOWN_PATH = 80


def problem(value: Any, *, typed: bool = False) -> str | None:
    """What of `value` cannot be stored, as ` at path …`; None if all can.

    With `typed`, an annotation is known and only the text and the numbers are looked at.
    """
    return _problem(value, (), typed)


def parsed_json(what: str, text: str) -> Any:
    """The value of a text that a person typed; `what` names it where it is no JSON.

    Raises ConfigurationError.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{what} is not JSON: {error}") from None


def place(path: tuple[Any, ...]) -> str:
    """` at path …`, cut and escaped for a message; nothing for the value itself."""
    if not path:
        return ""
    shown = ".".join(str(part) for part in path).encode("ascii", "backslashreplace").decode()
    shown = shown.replace("\0", "\\x00")
    return " at " + (shown if len(shown) <= _SHOWN_PATH else shown[:_SHOWN_PATH] + "…")


def _problem(value: Any, path: tuple[Any, ...], typed: bool) -> str | None:
    if value is None or value is True or value is False:
        return None
    if isinstance(value, str):
        return _in_text(value, path)
    if isinstance(value, int):
        if value.bit_length() <= LARGEST_BITS:
            return None
        return f"{place(path)} is an integer of more than 3900 digits; store it as text"
    if isinstance(value, float):
        if value - value == 0.0:  # neither infinite nor NaN
            return None
        return f"{place(path)} is {value!r}, which JSON cannot hold; use None or text instead"
    if len(path) > DEEPEST:
        return f"{place(path)} is nested more than {DEEPEST} levels deep, or contains itself"
    if isinstance(value, dict):
        return _in_dict(value, path, typed)
    if isinstance(value, list | tuple | set | frozenset) and (typed or _is_plain(value)):
        return _first(enumerate(value), path, typed)
    if not typed:
        return _unknown(value, path)
    return _in_bytes(value, path) if isinstance(value, bytes | bytearray) else None


def _is_plain(value: Any) -> bool:
    """Whether a list holds all of it; a named tuple would lose the names of its fields."""
    return isinstance(value, list | tuple) and not hasattr(value, "_fields")


def _in_text(text: str, path: tuple[Any, ...]) -> str | None:
    if "\0" in text:
        return f"{place(path)} holds a NUL character, which PostgreSQL's JSON refuses; remove it"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return (
            f"{place(path)} holds a lone surrogate, which is not Unicode text; "
            "decode the bytes it came from properly"
        )
    return None


def _in_bytes(value: bytes | bytearray, path: tuple[Any, ...]) -> str | None:
    try:
        value.decode()
    except UnicodeDecodeError:
        return (
            f"{place(path)} holds bytes that are not UTF-8 text; encode them as text, "
            "for example with base64"
        )
    return None


def _in_dict(value: dict[Any, Any], path: tuple[Any, ...], typed: bool) -> str | None:
    for key in value:
        if type(key) is str and key.isascii() and "\0" not in key:
            continue
        if not isinstance(key, str):
            if typed:
                continue
            return (
                f"{place(path)} has the key {shown(key, 40)} of type {type(key).__qualname__}; the "
                "keys of JSON are text: use str(key), or annotate the function's type"
            )
        if (found := _in_text(key, (*path, "(key)"))) is not None:
            return found
    return _first(value.items(), path, typed)


def _first(items: Iterable[tuple[Any, Any]], path: tuple[Any, ...], typed: bool) -> str | None:
    for key, item in items:
        kind = type(item)
        # What most values are made of needs no path.
        if (kind is str and item.isascii() and "\0" not in item) or (
            kind is int and -(2**53) < item < 2**53
        ):
            continue
        if (found := _problem(item, (*path, key), typed)) is not None:
            return found
    return None


def _unknown(value: Any, path: tuple[Any, ...]) -> str:
    name = type(value).__qualname__
    if isawaitable(value):
        return f"{place(path)} is a {name}, a call that was not awaited; write `await` before it"
    if isinstance(value, Enum):
        name = f"enum {name}"
    told = (
        f"{place(path)} is of type {name}, which plain JSON cannot hold; annotate the function "
        "with the value's type (dataclass, pydantic model, datetime, set, …), or use plain data"
    )
    if isinstance(value, Generator | AsyncGenerator):
        return f"{place(path)} is a generator, which cannot be stored; return a list of its values"
    if "<locals>" in name:
        told += "; a type made in a function is not found by annotations that are text, as under "
        told += "'from __future__ import annotations': make it at the top of its module"
    return told
