"""What an exception carries, taken out and put in without its class having a say. Pure.

A class of a user may refuse or answer any attribute: a frozen dataclass, one with slots, or
`urllib.error.HTTPError`, which looks for what it has not in a file.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MemberDescriptorType
from typing import Any

NOTES = "__notes__"
_ARGS: Any = BaseException.__dict__["args"]
_CAUSE: Any = BaseException.__dict__["__cause__"]


def attributes(error: BaseException) -> dict[str, Any]:
    """What it holds, in its `__dict__` and in slots."""
    held = dict(vars(error))
    for name, slot in _slots(type(error)).items():
        try:
            held.setdefault(name, slot.__get__(error))
        except AttributeError:  # it is empty
            continue
    return held


def restore(error: BaseException, args: tuple[Any, ...], held: Mapping[str, Any]) -> None:
    """Give it arguments and attributes, without its `__setattr__`."""
    _ARGS.__set__(error, args)
    slots = _slots(type(error))
    for name, value in held.items():
        if name in slots:
            slots[name].__set__(error, value)
        else:
            vars(error)[name] = value


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """`raise error from cause`, without its `__setattr__`."""
    _CAUSE.__set__(error, cause)


def add_note(error: BaseException, note: str) -> None:
    """Another note at its end, also where the class lets no attribute be looked for or set."""
    held = vars(error).get(NOTES)
    vars(error)[NOTES] = [*held, note] if isinstance(held, list) else [note]


def fits(value: Any, limit: int) -> bool:
    """Whether a value is small enough to be worth writing; looks at no more than `limit` of it.

    Its type is asked and not the value, whose `__class__` may be code of a user that fails.
    """
    left, ahead = limit, [value]
    while ahead:
        each = ahead.pop()
        left -= len(each) + 1 if issubclass(type(each), str | bytes) else 1
        parts = _parts(each)
        if left < len(parts):  # also of what holds itself
            return False
        ahead.extend(parts.values() if issubclass(type(parts), dict) else parts)
    return True


def _parts(value: Any) -> Any:
    kind = type(value)
    if issubclass(kind, list | tuple | dict | set | frozenset):
        return value
    if is_dataclass(kind):
        return [_field(value, each.name) for each in fields(kind)]
    return ()


def _field(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception:  # it is not kept then
        return None


def _slots(cls: type) -> dict[str, Any]:
    return {
        name: slot
        for each in reversed(cls.__mro__)
        for name, slot in vars(each).items()
        if isinstance(slot, MemberDescriptorType) and each.__module__ != "builtins"
    }
