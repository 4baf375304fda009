"""Cancels a coroutine where it waits for the n-th time, for every n: each is a place to lose
something that was just made."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


async def cut(work: Coroutine[Any, Any, object], at: int, *, late: bool) -> bool:
    """Cancel the work as it waits for the time number `at`; False if it never did, and has ended.

    If `late`, in the moment in which what it waits for is there: what it would be handed then is
    often nobody's. What the work raises comes through, but for the cancellation.
    """
    cutting = asyncio.ensure_future(_cut(work, at, late))
    await asyncio.wait({cutting})
    return cutting.cancelled() or cutting.result()


@types.coroutine
def _cut(work: Coroutine[Any, Any, object], at: int, late: bool) -> Generator[Any, Any, bool]:
    task = asyncio.current_task()
    assert task is not None
    waits, step, value = 0, work.send, None
    while True:
        try:
            awaited = step(value)
        except StopIteration:
            return False
        waits += 1
        if waits == at:
            if late and awaited is not None:
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            step, value = work.send, (yield awaited)
        except BaseException as error:
            step, value = work.throw, error
