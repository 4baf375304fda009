"""Values that a caller may pass by mistake, and what counts as an answer to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from openworkflow.core.errors import BackendError, OpenWorkflowError

LONGEST_MESSAGE = 700


class Unprintable:
    """A value of a class whose `__repr__` has a bug."""

    def __repr__(self) -> str:
        raise RuntimeError("this value cannot be shown")


ODD: tuple[Any, ...] = (
    *(None, 5, -1, 1.5, 10**5000, float("nan"), float("inf"), True),
    *("", "x" * 100_000, "\0", "\ud800", b"x"),
    *([], {}, (1,), {1: 2}, ["\0"], {"a": "\ud800"}, [Unprintable()], {"a": Unprintable()}),
    *(object(), Unprintable(), int, len, UUID(int=7)),
    *(datetime.min, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    timedelta.max,
)


def named(odd: object) -> str:
    """What to call it where a test fails."""
    try:
        return repr(odd)[:40]
    except Exception:
        return f"{type(odd).__name__} that cannot be shown"


def fault(raised: BaseException) -> str | None:
    """What is wrong with an answer; None if it is one of ours that a person can read."""
    try:
        text = str(raised)
    except Exception:
        return f"{type(raised).__name__} without a text"
    if not isinstance(raised, OpenWorkflowError) or isinstance(raised, BackendError):
        return f"{type(raised).__name__}: {text[:200]}"
    if len(text) > LONGEST_MESSAGE:
        return f"a message of {len(text)} characters: {text[:200]}"
    return None


async def answer(call: Callable[..., Any], **arguments: Any) -> None:
    """Make a call to its end, whether it is awaited, iterated over, or neither."""
    answered = call(**arguments)
    if inspect.isawaitable(answered):
        await answered
    elif hasattr(answered, "__anext__"):
        async for _ in answered:
            pass


async def faults(call: Callable[..., Any], sound: dict[str, Any], *names: str) -> list[str]:
    """What is wrong with the answers to odd values of each parameter in turn."""
    found = []
    for name in [*sound, *names]:
        for odd in ODD:
            try:
                await answer(call, **{**sound, name: odd})
            except Exception as error:
                if (told := fault(error)) is not None:
                    found.append(f"{name}={named(odd)}: {told}")
    return found
