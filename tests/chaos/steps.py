"""The steps of the campaign: each returns a token of its own, and tells what it has seen.

The input of a run is `{"job": name, "generation": number}`.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openworkflow import NonRetryableError, RetryPolicy, Undo, current_step
from tests.chaos.ledger import Ledger

HUNGER_BYTES = 256 << 20
Input = dict[str, Any]
Tokens = dict[str, str]
RETRY = RetryPolicy(max_attempts=50, initial=0.05, max_delay=0.2)


class _Here:
    """What a process has: its ledger, and which steps have failed in it once."""

    folder: Path
    ledger: Ledger
    failed: set[tuple[str, int, str]]


def open_ledger(folder: Path) -> None:
    """Have the steps of this process write to that folder."""
    _Here.folder, _Here.ledger, _Here.failed = folder, Ledger(folder), set()


def note_beat(sent: float) -> None:
    """A heartbeat was answered that was sent at that time."""
    _Here.ledger.beat(sent)


def mend(folder: Path, job: str) -> None:
    """Let the steps of that run do what they fail at."""
    (folder / f"{job}.mended").touch()


def idle(seconds: float) -> None:
    """Block this thread. Not time.sleep, which fails in processes whose clock can jump."""
    threading.Event().wait(seconds)


async def work(input: Input, key: str, seen: Mapping[str, str], seconds: float = 0.01) -> str:
    """A step that takes a while."""
    token = begin(input, key, seen)
    await asyncio.sleep(seconds)
    return token


async def work_at_once(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that waits for nothing."""
    return begin(input, key, seen)


def work_in_thread(input: Input, key: str, seen: Mapping[str, str], seconds: float = 0.02) -> str:
    """A step in a thread."""
    token = begin(input, key, seen)
    idle(seconds)
    return token


async def unsteady(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step whose first attempt in each process fails."""
    which = (input["job"], input["generation"], key)
    fails = which not in _Here.failed
    _Here.failed.add(which)
    token = begin(input, key, seen, raises=fails)
    if fails:
        raise ValueError(key)
    return token


async def broken(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that fails for good."""
    begin(input, key, seen, raises=True)
    raise NonRetryableError(f"meant to fail: {key}")


async def eat(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that fails without memory, before it has done anything; it does not fill it."""
    mmap.mmap(-1, HUNGER_BYTES).close()
    return begin(input, key, seen)


async def block(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that blocks the event loop of its worker."""
    token = begin(input, key, seen)
    idle(float(input.get("seconds", 1.0)))
    return token


async def work_and_tell(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that tells what it is about to return."""
    token = begin(input, key, seen)
    current_step().emit("work", [key, token])
    await asyncio.sleep(0.01)
    return token


async def hold(input: Input, key: str, seen: Mapping[str, str], seconds: float = 0.15) -> str:
    """A step that says when it is over too, so that one can tell what is under way at once."""
    token = begin(input, key, seen)
    await asyncio.sleep(seconds)
    _Here.ledger.end(token)
    return token


async def until_mended(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that fails for good until somebody has mended what it needs."""
    mended = _is_mended(input)
    token = begin(input, key, seen, raises=not mended)
    if not mended:
        raise NonRetryableError(f"not mended yet: {key}")
    return token


async def work_anew(input: Input, key: str, seen: Mapping[str, str]) -> str:
    """A step that is called `KEY+` once somebody has mended its run."""
    return begin(input, f"{key}+" if _is_mended(input) else key, seen)


def undo_of(input: Input, key: str, *, fails: bool = False) -> Undo[str]:
    """What undoes the step `key`; in the ledger it is called `undo:KEY`."""
    undoing = f"undo:{key}"

    async def undo(token: str) -> None:
        seen = {key: token}
        if fails:
            await unsteady(input, undoing, seen)
        else:
            await work(input, undoing, seen)

    async def uncertain(_: str) -> None:
        await work(input, undoing, {})

    return Undo(undo, retry=RETRY, uncertain=uncertain)


def begin(input: Input, key: str, seen: Mapping[str, str], *, raises: bool = False) -> str:
    return _Here.ledger.begin(input["job"], input["generation"], key, seen, raises=raises)


def _is_mended(input: Input) -> bool:
    return (_Here.folder / f"{input['job']}.mended").exists()
