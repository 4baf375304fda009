"""Attributes and arguments of an exception that are no plain JSON, as JSON and back. Pure.

What is known by a name of its own stands in a tag, `{"$": ["decimal", "9.90"]}`. Reading it imports
nothing and runs no code of a user: a dataclass is put together from its fields, without `__init__`,
and only where the program has its class, or its enum, already.
"""

import base64
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, EnumMeta, Flag
from typing import Any
from uuid import UUID

TAG = "$"
_PLAIN = (str, int, float, bool, type(None))


def loaded(name: str, kind: type) -> Any:
    """The class `module:QualifiedName`, if the program has it and it is such a one; else None."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # Not getattr: a module's __getattr__ may import.
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type):
        return None
    return found if issubclass(found, kind) else None


def name_of(cls: type) -> str:
    """What `loaded` finds it by."""
    return f"{cls.__module__}:{cls.__qualname__}"


def write(value: Any) -> Any:
    """The JSON value that `read` makes the same of. Raises ValueError if there is none."""
    kind = type(value)
    if kind in _PLAIN:
        return value if kind is not float or math.isfinite(value) else {TAG: ["float", repr(value)]}
    if kind is list:
        return [write(each) for each in value]
    if kind is dict and all(type(key) is str for key in value):
        written = {key: write(each) for key, each in value.items()}
        return {TAG: ["dict", written]} if TAG in value else written
    if kind is dict:
        return {TAG: ["pairs", [[write(key), write(each)] for key, each in value.items()]]}
    if (simple := _SIMPLE.get(kind)) is not None:
        return {TAG: [kind.__name__, simple[0](value)]}
    if kind in _MANY:
        each = [write(item) for item in value]
        return {TAG: [kind.__name__, each if kind is tuple else sorted(each, key=repr)]}
    if issubclass(kind, Enum):
        return {TAG: ["enum", name_of(kind), value.name]} if _single(value) else _flags(value)
    if is_dataclass(kind) and _shows_all(value):  # else it has a secret
        parts = {each.name: write(getattr(value, each.name)) for each in fields(kind)}
        return {TAG: ["dataclass", name_of(kind), parts]}
    raise ValueError(f"{kind.__name__} has no form")


def read(value: Any) -> Any:
    """What `write` was given. Raises ValueError for what this program cannot make."""
    if isinstance(value, list):
        return [read(each) for each in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: read(each) for key, each in value.items()}
    try:
        name, *rest = value[TAG]
        return _READERS[name](*rest)
    except (TypeError, KeyError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"no value: {error}") from error


def _enum(name: str, member: str) -> Any:
    found = loaded(name, Enum)
    if not isinstance(found, EnumMeta):
        raise ValueError(f"there is no enum {name}")
    return found.__dict__["_member_map_"][member]


def _single(value: Enum) -> bool:
    """Whether it is a member that has a name, and no combination of flags."""
    return value.name in type(value).__dict__["_member_map_"]


def _flags(value: Any) -> Any:
    names = [each.name for each in value]
    if _combined(name_of(type(value)), names) is not value:  # it has bits that have no name
        raise ValueError(f"{value!r} has no form")
    return {TAG: ["flags", name_of(type(value)), names]}


def _combined(name: str, members: list[str]) -> Any:
    found = loaded(name, Flag)
    if found is None:
        raise ValueError(f"there are no flags {name}")
    bits = 0
    for member in members:
        bits |= found.__dict__["_member_map_"][member]._value_
    known = found.__dict__["_value2member_map_"].get(bits)
    # Flag's own: that of the class is code of a user.
    return Flag.__dict__["_missing_"].__func__(found, bits) if known is None else known


def _shows_all(value: Any) -> bool:
    """Whether the repr of a dataclass is the one that dataclasses write, of all its fields."""
    parts = ", ".join(f"{each.name}={getattr(value, each.name)!r}" for each in fields(value))
    return repr(value) == f"{type(value).__qualname__}({parts})"


def _dataclass(name: str, parts: Mapping[str, Any]) -> Any:
    found = loaded(name, object)
    if found is None or not is_dataclass(found):
        raise ValueError(f"there is no dataclass {name}")
    made: Any = object.__new__(found)  # type: ignore[arg-type]  # a class, which it is
    for each in fields(found):  # it may have gained some since, with a default, or lost some
        value = read(parts[each.name]) if each.name in parts else each.default
        if value is MISSING:
            raise ValueError(f"there is no {each.name} for {name}")
        object.__setattr__(made, each.name, value)
    return made


def _timedelta(parts: list[int]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days, seconds, microseconds)


_SIMPLE: Mapping[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (lambda each: [each.days, each.seconds, each.microseconds], _timedelta),
    bytes: (lambda each: base64.b64encode(each).decode(), base64.b64decode),
}
_MANY: tuple[type, ...] = (tuple, set, frozenset)
_READERS: Mapping[str, Callable[..., Any]] = {
    **{kind.__name__: simple[1] for kind, simple in _SIMPLE.items()},
    "float": float,
    "pairs": lambda pairs: {read(key): read(each) for key, each in pairs},
    "tuple": lambda items: tuple(read(items)),
    "set": lambda items: set(read(items)),
    "frozenset": lambda items: frozenset(read(items)),
    "dict": lambda parts: {key: read(each) for key, each in parts.items()},
    "enum": _enum,
    "flags": _combined,
    "dataclass": _dataclass,
}
