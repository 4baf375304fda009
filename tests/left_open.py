"""A plugin of pytest's: a test that leaves a connection to PostgreSQL open fails, by name.

Else the connection is garbage, and fails whichever test of the same process the collector happens
to run in. What a fixture of a wider scope than a test has connected is its own to close.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
import weakref
from collections.abc import Generator
from types import FrameType
from typing import Any, Final

import asyncpg
import pytest

CLOSES_SECONDS: Final = 20.0
"""For threads that nobody waits for, as the heartbeat of a worker that died; on a busy machine."""
_FRAMES: Final = 8

Made = list[tuple["weakref.ref[Any]", str]]
_made: Made = []
"""What the running test has connected, and where."""
_init = asyncpg.connection.Connection.__init__


def _note(self: asyncpg.Connection[Any], *arguments: Any, **named: Any) -> None:
    _init(self, *arguments, **named)
    _made.append((weakref.ref(self), _place(sys._getframe(1))))


def pytest_configure() -> None:
    asyncpg.connection.Connection.__init__ = _note  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    asyncpg.connection.Connection.__init__ = _init  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    before = len(_made)
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            del _made[before:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    try:
        result = yield
    finally:
        made = _made.copy()
        _made.clear()
    if places := _left_open(made):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # here, where it fails nobody else
        pytest.fail("\n".join(("connections were left open, made at", *places)), pytrace=False)
    return result


def _left_open(made: Made) -> list[str]:
    """Where those were made that nobody closes any more."""
    give_up = time.monotonic() + CLOSES_SECONDS
    while True:
        left = [(each, where) for ref, where in made if (each := ref()) and not each.is_closed()]
        alive = any(not each._loop.is_closed() for each, _ in left)
        if not alive or time.monotonic() > give_up:
            return [where for _, where in left]
        del left  # it may be about to be freed
        time.sleep(0.01)


def _place(frame: FrameType | None) -> str:
    """The last frames that are not of a library, the outermost first."""
    lines: list[str] = []
    while frame is not None and len(lines) < _FRAMES:
        code = frame.f_code
        if "site-packages" not in code.co_filename and "/asyncio/" not in code.co_filename:
            lines.append(f"  {code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return "\n".join(reversed(lines))
