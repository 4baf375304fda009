"""JSON text as PostgreSQL's jsonb gives it back: the order of keys, and numbers as `numeric`.

jsonb keeps no order of its own: it sorts the keys of an object by their length in bytes, then
bytewise. It keeps numbers as decimals: 1e16 comes back as 10000000000000000, which reads as an int,
and -0.0 as 0.0. So floats are written with their point, which `numeric` keeps.
"""

import json
import re
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

_SUSPECT = re.compile(rb"(?<=[0-9])e\+?[0-9]|-0\.0")
"""Shows up where a number may need to be rewritten, and in many a hash or id inside strings."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')
"""A string or a number. Strings are passed over in runs of characters that need no look: hashes and
base64 are full of what looks like an exponent, and one by one that took 40 ns a character."""

_ORDERLESS = frozenset(
    {"model", "model-fields", "model-field", "dataclass", "dataclass-args", "dataclass-field"}
    | {"typed-dict", "typed-dict-field", "nullable", "default", "definitions", "definition-ref"}
    | {"union", "tagged-union", "list", "tuple", "set", "frozenset", "none", "literal", "enum"}
    | {"bool", "int", "float", "decimal", "str", "bytes", "uuid"}
    | {"date", "time", "datetime", "timedelta"}
)
"""Types of core schemas that read fields in the order of their definition, or have none."""


def float_text(value: float) -> str:
    """JSON text of a finite float, which jsonb gives back as the same float."""
    if abs(value) >= 1e16:
        return f"{Decimal(repr(value)):f}.0"
    return repr(value + 0.0)  # -0.0 becomes 0.0


def with_floats_kept(text: bytes) -> bytes:
    """`text` with each float written so that jsonb gives back a float."""
    if (
        (b"e" in text or b"-0.0" in text)
        and _SUSPECT.search(text)
        and _SUSPECT.search(_outside_strings(text))
    ):
        return _TOKEN.sub(_rewritten, text)
    return text


def in_jsonb_order(text: str) -> str:
    """`text` with the keys of every object in the order in which jsonb gives them back."""
    if "{" not in text:
        return text
    return with_floats_kept(to_json(loads_in_jsonb_order(text))).decode()


def loads_in_jsonb_order(text: str) -> Any:
    """The plain data of `text`, its dicts in the order in which jsonb gives them back."""
    return _load(text)


def shows_order(schema: Any) -> bool:
    """Whether what pydantic makes by a core schema may depend on the order of an object's keys."""
    if isinstance(schema, list | tuple):
        return any(map(shows_order, schema))
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in _ORDERLESS:
        return True
    return schema.get("extra_behavior") == "allow" or any(map(shows_order, schema.values()))


def _outside_strings(text: bytes) -> bytes:
    """What of `text` is not in a string."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'"'.join(text.split(b'"')[::2])


def _rewritten(token: re.Match[bytes]) -> bytes:
    text = token[0]
    if text[:1] == b'"' or not (text == b"-0.0" or b"e" in text or b"E" in text):
        return text
    return float_text(float(text)).encode()


def _sorted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    keys = tuple(held)
    order = _orders.get(keys)
    if order is None:
        order = _order(keys)
    return {key: held[key] for key in order} if order else held


def _order(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The order of keys in jsonb; empty if they have it."""
    found = sorted(keys)
    # Code points sort as their UTF-8 does, so only the length has to be counted in bytes.
    found.sort(key=len if all(map(str.isascii, keys)) else _bytes)
    order = () if tuple(found) == keys else tuple(found)
    if len(keys) <= _FIELDS:
        if len(_orders) >= _SHAPES:
            _orders.clear()
        _orders[keys] = order
    return order


def _bytes(key: str) -> int:
    return len(key.encode())


_SHAPES, _FIELDS = 1024, 32
_orders: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Keys of objects met before, and their order: most objects are alike. It is bounded."""
_load = json.JSONDecoder(object_pairs_hook=_sorted).decode
