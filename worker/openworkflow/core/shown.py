"""How a value is shown in a message: briefly, and whatever its own `__repr__` does. Pure."""

from typing import Any


def shown(value: Any, most: int = 80) -> str:
    """The beginning of `repr(value)`; its type where that raises."""
    try:
        return repr(value)[:most]
    except Exception:
        return f"<a value of type {type(value).__name__}, which cannot be shown>"[:most]
