"""How deep JSON is nested: deeper than Python reads it, one object would hide all in its list."""

from __future__ import annotations

import re
from typing import Any, Final

#: Of an answer of the API server, far above what anybody needs, far below Python's limit.
DEEPEST: Final = 200

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)


def depth_of(text: str) -> int:
    """The number of brackets that are open at once."""
    depth = deepest = 0
    for token in _TOKEN.finditer(text.encode()):
        depth += _step(token[0])
        deepest = max(deepest, depth)
    return deepest


def cut(text: bytes) -> bytes:
    """The JSON text with `null` for whatever lies deeper than DEEPEST."""
    kept: list[bytes] = []
    depth = last = 0
    for token in _TOKEN.finditer(text):
        step = _step(token[0])
        if step > 0 and depth == DEEPEST:
            kept += [text[last : token.start()], b"null"]
        depth += step
        if step < 0 and depth == DEEPEST:
            last = token.end()
    return b"".join([*kept, text[last:]])


def shallow(value: Any, levels: int = DEEPEST) -> Any:
    """The value with None for whatever lies deeper; itself where nothing does."""
    if not isinstance(value, dict | list) or not value:
        return value
    if not levels:
        return None
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    kept = [(name, shallow(item, levels - 1)) for name, item in pairs]
    if all(new is old for (_, new), (_, old) in zip(kept, pairs, strict=True)):
        return value
    return dict(kept) if isinstance(value, dict) else [item for _, item in kept]


def _step(token: bytes) -> int:
    return {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token, 0)
