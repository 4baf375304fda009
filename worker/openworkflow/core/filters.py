"""The filter language: which runs are meant, said alike on the command line and in Python. Pure.

    status:failed workflow:order tag.customer:acme error~"time out" started>2h -version:1,2

Terms are joined by *and*; a comma within one means *or*; a minus before one means *not*.
A length of time is an age: `started>2h` began more than two hours ago.
A date is a time: `created>2026-11-01` was created after it. The id of a run may stand alone.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

from openworkflow.core.asked import check_is
from openworkflow.core.duration import parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow.core.shown import shown
from openworkflow.core.standing import STANDINGS
from openworkflow.core.tags import tag_name
from openworkflow.core.workflow_run import RunStatus

LENGTH_LIMIT = 10_000
"""Characters of a filter."""
MOST_TERMS = 50
VALUE_LIMIT = 1000

Operator = Literal[":", "~", ">", "<"]


class Kind(StrEnum):
    """What the values of a field are, and so what may be asked of it."""

    STATUS = "a status"
    TEXT = "a text"
    LIKE = "a text that is also looked into"
    ID = "an id"
    TIME = "a time"
    NUMBER = "a number"
    FLAG = "yes or no"


FIELDS = {
    "status": Kind.STATUS,
    "workflow": Kind.TEXT,
    "version": Kind.TEXT,
    "worker": Kind.TEXT,
    "build": Kind.TEXT,
    "key": Kind.TEXT,
    "error": Kind.LIKE,
    "id": Kind.ID,
    "forked": Kind.ID,
    "parent": Kind.ID,
    "created": Kind.TIME,
    "started": Kind.TIME,
    "ended": Kind.TIME,
    "due": Kind.TIME,
    "attempts": Kind.NUMBER,
    "priority": Kind.NUMBER,
    "crashes": Kind.NUMBER,
    "paused": Kind.FLAG,
    "limited": Kind.FLAG,
    "undo_failed": Kind.FLAG,
}
"""Beside these there are tag.NAME, which is a TEXT, and input.PATH and output.PATH, LIKE."""
_ALIASES = {"state": "status", "name": "workflow"}
"""What other programs call a field."""
_PREFIXES = {"tag": Kind.LIKE, "input": Kind.LIKE, "output": Kind.LIKE}
_OPERATORS: dict[Kind, tuple[Operator, ...]] = {
    Kind.STATUS: (":",),
    Kind.TEXT: (":", "~"),
    Kind.LIKE: (":", "~"),
    Kind.ID: (":",),
    Kind.TIME: (">", "<"),
    Kind.NUMBER: (":", ">", "<"),
    Kind.FLAG: (":",),
}
Value = str | float | bool | UUID | timedelta | datetime

_ANY_ID = UUID(int=0)
_FIELD = re.compile(r"[^\s:~<>\"]+")
_BARE = re.compile(r"[^\s,\"]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    field: str
    path: tuple[str, ...]
    """Name of a tag, or the keys that lead to a value."""
    operator: Operator
    values: tuple[Value, ...]
    """One of these is enough."""
    negated: bool


def parse_filter(text: str) -> tuple[Term, ...]:
    """The terms of a filter, none of an empty one. Raises ConfigurationError that says where."""
    check_is("where", text, str, 'text, such as "status:failed"')
    if len(text) > LENGTH_LIMIT:
        raise ConfigurationError(f"a filter has at most {LENGTH_LIMIT} characters")
    terms = tuple(_terms(text))
    if len(terms) > MOST_TERMS:
        raise ConfigurationError(f"a filter has at most {MOST_TERMS} terms, not {len(terms)}")
    return terms


def quoted(value: str) -> str:
    """A value as it is written in a filter: in quotation marks where it needs them."""
    if _BARE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _terms(text: str) -> Iterator[Term]:
    place = 0
    while True:
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text):
            return
        term, place = _term(text, place)
        yield term


def _term(text: str, start: int) -> tuple[Term, int]:
    negated = text[start] == "-"
    found = _FIELD.match(text, start + negated)
    if found is None:
        raise _refusal(text, start, "a term is a field, one of : ~ > <, and a value")
    place = found.end()
    if (run_id := _as_id(found[0])) and not text[place : place + 1].strip():
        return Term("id", (), ":", (run_id,), negated), place  # as it is pasted
    sign = text[place : place + 1]
    name, equals, value = found[0].partition("=")
    if equals and sign not in tuple(":~<>"):
        meant = f"{name}:{value.lstrip('=')}"
        raise _refusal(text, start, f"a field and its value have a colon between them: {meant}")
    field, path, kind = _field(text, found[0], start)
    allowed = _OPERATORS[kind]
    operator = next((each for each in allowed if each == sign), None)
    if operator is None:
        raise _refusal(
            text, start, f"{found[0]!r} is {kind}; after it comes {' or '.join(allowed)}"
        )
    values = []
    while True:
        value, place = _text(text, place + 1)
        values.append(_value(text, start, kind, operator, value))
        if text[place : place + 1] != ",":
            break
    if place < len(text) and not text[place].isspace():
        raise _refusal(text, start, "between terms there is a space")
    return Term(field, path, operator, tuple(values), negated), place


def _as_id(word: str) -> UUID | None:
    try:
        return UUID(word) if len(word) == len(str(_ANY_ID)) else None
    except ValueError:
        return None


def _field(text: str, word: str, start: int) -> tuple[str, tuple[str, ...], Kind]:
    if word in FIELDS:
        return word, (), FIELDS[word]
    prefix, dot, rest = word.partition(".")
    if prefix in _PREFIXES and dot and rest:
        path = (tag_name(rest),) if prefix == "tag" else tuple(rest.split("."))
        for part in path:
            storable_text("a key in a filter", part, VALUE_LIMIT)
        return prefix, path, _PREFIXES[prefix]
    known = [*FIELDS, *(f"{name}.NAME" for name in _PREFIXES)]
    shape = f"{prefix}.NAME" if dot else word
    near = [_ALIASES[word]] if word in _ALIASES else difflib.get_close_matches(shape, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise _refusal(text, start, f"there is no field {shown(word)}; {hint}")


def _text(text: str, place: int) -> tuple[str, int]:
    """The value that begins here, and where it ends."""
    if marked := _QUOTED.match(text, place):
        return re.sub(r"\\(.)", r"\1", marked[1], flags=re.DOTALL), marked.end()
    if bare := _BARE.match(text, place):
        return bare[0], bare.end()
    raise _refusal(text, place, "a value is missing, or a quotation mark")


def _value(text: str, start: int, kind: Kind, operator: Operator, value: str) -> Value:
    try:
        if kind is Kind.STATUS:
            return _status(value)
        if kind is Kind.ID:
            return UUID(value)
        if kind is Kind.NUMBER:
            return _number(value)
        if kind is Kind.TIME:
            return _time(value)
        if kind is Kind.FLAG:
            return {"yes": True, "no": False}[value]
        return storable_text(f"the value after {operator}", value, VALUE_LIMIT)
    except (ValueError, KeyError, ConfigurationError) as error:
        told = str(error) if isinstance(error, ConfigurationError) else f"it is {kind}"
        raise _refusal(text, start, f"{shown(value)} does not fit: {told}") from None


def _status(value: str) -> str:
    known = [status.value for status in RunStatus]
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, 1)
    told = f"did you mean {near[0]!r}?" if near else f"the statuses are {', '.join(known)}"
    if value in STANDINGS:
        told = f"it is where a run stands, and no status: {', '.join(known)}"
    raise ConfigurationError(told)


def _number(value: str) -> float:
    number = float(value)
    if not -1e15 < number < 1e15:
        raise ValueError
    return number


def _time(value: str) -> timedelta | datetime:
    """An age, or a moment: in UTC, unless it names its zone."""
    if not re.match(r"\d{4}-", value):
        try:
            return parse_duration(value)
        except ConfigurationError:
            raise ConfigurationError(
                "it is an age, such as 90s, 2h or 7d, or a moment, such as 2026-11-01 or "
                "2026-11-01T12:00:00+01:00"
            ) from None
    moment = datetime.fromisoformat(value)
    if not 1 < moment.year < 9999:
        raise ValueError
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _refusal(text: str, start: int, why: str) -> ConfigurationError:
    shown = text[start : start + 40] + ("…" if len(text) > start + 40 else "")
    return ConfigurationError(f"in the filter, at {shown!r}: {why}")
