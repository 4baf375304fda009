"""What a round trip through JSON would take away from a value, although its annotation let it pass.

An annotation may drop a part of a value (a subclass's fields, an excluded field), replace it (a
SecretStr by asterisks) or read it back as another member of a union. Nobody would notice before the
workflow decides by it.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pydantic

_BUILTIN = (str, bytes, bytearray, int, float, list, tuple, set, frozenset, dict, type(None))
"""Types whose values an annotation may convert: 3 to 3.0, text to a datetime, a dict to a model."""

Loss = tuple[tuple[Any, ...], Any, Any]
"""Path of what changed, what it was and what it became."""


def change(before: Any, after: Any) -> Loss | None:
    """The first part of `before` that is not the same in `after`.

    Parts count as the same if they are equal, or made of equal parts in an equal type. Lists and
    tuples are one: JSON has one kind of sequence.
    """
    return _compare(before, after, (), False)


def conversion_loss(before: Any, after: Any) -> Loss | None:
    """The first part of `before` that an annotation's conversion to `after` takes away.

    Builtin values may become values of another type; all else has to be the same.
    """
    return _compare(before, after, (), True)


def is_reordered(before: Any, after: Any) -> bool:
    """Whether two dicts whose order counts have the same keys in another one."""
    ordered = isinstance(before, OrderedDict) and isinstance(after, OrderedDict)
    return ordered and before.keys() == after.keys() and list(before) != list(after)


def _compare(before: Any, after: Any, path: tuple[Any, ...], converts: bool) -> Loss | None:
    if before is after or _equal(before, after):
        return None
    if isinstance(after, Iterator):  # may be read once only, unlike what it was made of
        return path, before, after
    if _is_sequence(before) and _is_sequence(after):
        if len(before) != len(after):
            return path, before, after
        return _first(enumerate(before), enumerate(after), path, converts)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _compare_mappings(before, after, path, converts)
    if type(before) is not type(after):
        convertible = converts and isinstance(before, _BUILTIN) and not _is_enum(before)
        return None if convertible else (path, before, after)
    if (parts := _parts(before)) is not None:
        return _first(parts.items(), (_parts(after) or {}).items(), path, converts)
    # Without an __eq__ of its own nothing can be said.
    compares = getattr(type(before), "__eq__", None) is not getattr(object, "__eq__", None)
    return (path, before, after) if compares else None


def _compare_mappings(
    before: Mapping[Any, Any], after: Mapping[Any, Any], path: tuple[Any, ...], converts: bool
) -> Loss | None:
    for key in before:
        if key not in after:
            return (*path, key), before[key], None
    if len(before) != len(after):
        return path, before, after
    found = _first(before.items(), ((key, after[key]) for key in before), path, converts)
    if found is None and is_reordered(before, after):
        return path, before, after
    return found


def _first(before: Any, after: Any, path: tuple[Any, ...], converts: bool) -> Loss | None:
    for (key, left), (_, right) in zip(before, after, strict=False):
        if (found := _compare(left, right, (*path, key), converts)) is not None:
            return found
    return None


def _equal(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # arrays compare by element, and others raise what they like
        return False


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) and not hasattr(value, "_fields")


def _is_enum(value: Any) -> bool:
    return hasattr(type(value), "__members__")


def _parts(value: Any) -> dict[str, Any] | None:
    """The fields of a model or dataclass by name; None for anything else.

    Private attributes of models, and fields that a dataclass does not compare, are no part of it.
    """
    kind = type(value)
    if isinstance(value, pydantic.BaseModel):
        held = {name: value.__dict__.get(name) for name in kind.model_fields}
        return held | (value.__pydantic_extra__ or {})
    if is_dataclass(value):
        return {
            each.name: getattr(value, each.name, None) for each in fields(value) if each.compare
        }
    return None
