"""What a tool answers: JSON on one line, no longer than a model can read. Pure."""

import dataclasses
import json
from collections.abc import Iterable
from datetime import MAXYEAR, UTC, datetime
from typing import Any
from uuid import UUID

from openworkflow.core.envelope import described
from openworkflow.core.printable import printable_json
from openworkflow.web import words

LONGEST = 4000
"""Characters of a value: an input, an output, a traceback."""
BRIEF = 400
"""Characters of one of many values: the result of a step, a message."""
NAME = 200
"""Characters of a name."""


def answer(given: Any) -> str:
    """A JSON document; what would turn or hide text is escaped, and what is None left out."""
    return printable_json(_bare(given), str)


def value(given: Any, most: int = LONGEST) -> Any:
    """A JSON value as it is; as text that is cut, and says so, where it is longer.

    One that is encoded is described, and never decoded for an assistant.
    """
    if (encoded := described(given)) is not None:
        return f"({encoded})"
    text = json.dumps(given, ensure_ascii=False)
    return given if len(text) <= most else words.cut(text, most)


def brief(text: Any, most: int = BRIEF) -> str:
    """A text on one line, cut."""
    return words.short(text, most)


def first(name: str, found: Iterable[Any], most: int) -> dict[str, Any]:
    """The first of many under a name, and how many more there are."""
    known = list(found)
    left = len(known) - most
    return {name: known[:most], **({f"more_{name}": left} if left > 0 else {})}


def _bare(given: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(given, datetime):
        return None if given.year == MAXYEAR else f"{given.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(given, UUID):
        return str(given)
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    if isinstance(given, dict):
        return {str(name): _bare(each) for name, each in given.items() if each is not None}
    if isinstance(given, list | tuple | set | frozenset):
        return [_bare(each) for each in given]
    return given
