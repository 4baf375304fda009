"""A short number for one call of a function, which tells calls with other arguments apart.

It is compared with what another process stored, so it depends on values alone: not on addresses,
the order of dicts and sets, PYTHONHASHSEED or the version of Python. What has no such form (an open
file, a client, an object of the user's own class) counts by its type. Nothing of the user's is
called: no __repr__, __hash__, __eq__ or __iter__.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from uuid import UUID

import pydantic

LONGEST = 16_384
"""Characters of canonical text that are looked at; calls that differ later look alike."""
DEEPEST = 12
"""Levels of nesting that are looked at."""

_SHORT = frozenset({int, str, bool, float, type(None)})
_ABSENT = object()


def fingerprint(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """16 hexadecimal digits for a call of `fn`; never raises.

    The function counts by its qualified name without its module, so that a module may be renamed.
    """
    canonical = _Canonical()
    try:
        canonical.call(fn, args, kwargs)
    except _Enough:
        pass
    except Exception:  # an attribute that raises; what was read before it counts
        canonical.parts.append("!")
    text = "".join(canonical.parts)[:LONGEST]
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class _Enough(Exception):
    """The text is as long as it may become."""


class _Canonical:
    """Writes values as text, each in one way only."""

    __slots__ = ("left", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.left = LONGEST

    def call(self, fn: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        self.value(fn, 0)
        for each in args:
            self.value(each, 0)
        if kwargs:
            self.pairs("**", kwargs.items(), 0)

    def value(self, value: Any, level: int) -> None:
        kind = type(value)
        if kind in _SHORT:
            self.add(_scalar(kind, value))
        elif level >= DEEPEST:
            self.add(f"<{kind.__qualname__}>")
        elif issubclass(kind, Enum):
            self.add(f"e{kind.__qualname__}.{value._name_};")
        elif issubclass(kind, str | int | float):
            self.add(
                _scalar(next(each for each in (str, int, float) if issubclass(kind, each)), value)
            )
        elif issubclass(kind, list):
            self.items("list", list.__iter__(value), level)
        elif issubclass(kind, tuple):
            self.items("tuple", tuple.__iter__(value), level)
        elif issubclass(kind, dict):
            self.pairs("dict", dict.items(value), level)
        elif issubclass(kind, set):
            self.unordered(list(set.__iter__(value)), level)
        elif issubclass(kind, frozenset):
            self.unordered(list(frozenset.__iter__(value)), level)
        elif (text := _atom(value, kind)) is not None:
            self.add(text)
        elif isinstance(value, FunctionType | BuiltinFunctionType | type):
            self.add(f"f{value.__qualname__};")
        else:
            self.compound(value, kind, level)

    def compound(self, value: Any, kind: type, level: int) -> None:
        if issubclass(kind, functools.partial):
            self.items("partial", (value.func, *value.args), level)
            self.pairs("**", value.keywords.items(), level)
        elif issubclass(kind, MethodType):
            self.items("method", (value.__func__, type(value.__self__)), level)
        elif issubclass(kind, pydantic.BaseModel) and kind.model_config.get("frozen"):
            held = {**value.__dict__, **(value.__pydantic_extra__ or {})}
            self.pairs(kind.__qualname__, held.items(), level)
        elif is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            held = {each.name: getattr(value, each.name, _ABSENT) for each in fields(kind)}
            self.pairs(kind.__qualname__, held.items(), level)
        else:
            self.add(f"<{kind.__qualname__}>")

    def items(self, name: str, items: Iterable[Any], level: int) -> None:
        self.add(f"{name}[")
        for each in items:
            self.value(each, level + 1)
        self.add("]")

    def pairs(self, name: str, pairs: Iterable[tuple[Any, Any]], level: int) -> None:
        held = dict(enumerate(pairs))
        self.add(f"{name}{len(held)}{{")
        keys = self.texts(((index, key) for index, (key, _) in held.items()), level)
        for text, index in sorted(keys):
            self.add(text)
            self.value(held[index][1], level + 1)
        self.add("}")

    def unordered(self, items: Sequence[Any], level: int) -> None:
        self.add(f"set{len(items)}{{")
        for text, _ in sorted(self.texts(enumerate(items), level)):
            self.parts.append(text)
        self.add("}")

    def texts(self, items: Iterable[tuple[int, Any]], level: int) -> list[tuple[str, int]]:
        """Text of each item, to be sorted by; a set has no other order that repeats.

        Where there is too much of it, all is left out: its beginning would be another each time.
        """
        outer, found = self.parts, []
        try:
            for index, item in items:
                self.parts = []
                self.value(item, level + 1)
                found.append(("".join(self.parts), index))
        finally:
            self.parts = outer
        return found

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.left -= len(text)
        if self.left < 0:
            raise _Enough


def _scalar(kind: type, value: Any) -> str:
    """Text of a value of a builtin type, or of one derived from it."""
    if value is None:
        return "n;"
    if kind is str:
        text = str.__str__(value)
        return f"s{len(text)}:{text[:LONGEST]}"
    if kind is float:
        return f"d{float.__repr__(value)};"
    return f"i{int.__format__(value, 'x')};" if kind is int else f"b{value:d};"


def _atom(value: Any, kind: type) -> str | None:
    """Text of a value without parts; None for anything else."""
    if issubclass(kind, bytes | bytearray):
        return f"y{len(value)}:{bytes(value[: LONGEST // 2]).hex()}"
    if issubclass(kind, datetime):
        return f"t{datetime.isoformat(value)};"
    if issubclass(kind, date):
        return f"t{date.isoformat(value)};"
    if issubclass(kind, time):
        return f"t{time.isoformat(value)};"
    if issubclass(kind, timedelta):
        return f"l{value.days},{value.seconds},{value.microseconds};"
    if issubclass(kind, Decimal):
        return f"m{Decimal.__str__(value)};"
    if issubclass(kind, UUID):
        return f"u{value.int:x};"
    if issubclass(kind, PurePath):
        return f"p{PurePath.__str__(value)};"
    return None
