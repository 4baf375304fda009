"""Where tasks of a workflow function stand that nothing will move, for the error about that."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

SHOWN = 3
"""Places that a message lists."""
_OF_OTHERS = tuple(
    os.path.join(path, "")
    for path in {*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))}
)
"""Where code is kept that is not the user's."""
_OF_AGENTS = {
    "pydantic_ai": "openworkflow.agents.pydantic_ai",
    "agents": "openworkflow.agents.openai_agents",
}
"""Libraries of agents, by their folder, and what makes durable what they do."""


def places(coroutines: Iterable[Any]) -> str:
    """A part of a sentence, " in order.py line 7 (ship)"; empty where nothing is known."""
    found = dict.fromkeys(filter(None, map(_place, coroutines)))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f", in {', '.join([*found][:SHOWN])}{more}" if found else ""


def in_thread(coroutines: Iterable[Any]) -> bool:
    """Whether one of them waits for a thread, as far as the names of what it calls tell."""
    names = (frame.f_code.co_name for each in coroutines for frame in _frames(each))
    files = (frame.f_code.co_filename for each in coroutines for frame in _frames(each))
    return any("thread" in name for name in names) or any("to_thread" in file for file in files)


def agent(frames: Iterable[FrameType]) -> str:
    """A part of a sentence for what the library of an agent calls; else empty."""
    for frame in frames:
        for home in _OF_OTHERS:
            head, _, rest = frame.f_code.co_filename.partition(home)
            module = None if head else _OF_AGENTS.get(rest.partition(os.sep)[0])
            if module is not None:
                return f"; what an agent does becomes steps by {module}, see docs/agents.md"
    return ""


def frames_of(coroutines: Iterable[Any]) -> list[FrameType]:
    """All that is being called in them."""
    return [frame for each in coroutines for frame in _frames(each)]


def callers() -> Iterator[FrameType]:
    """Who has called this, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(coroutine: Any) -> str | None:
    frames = list(_frames(coroutine))
    own = [each for each in frames if not each.f_code.co_filename.startswith(_OF_OTHERS)]
    if not frames:
        return None
    frame = (own or frames)[-1]
    code = frame.f_code
    return f"{os.path.basename(code.co_filename)} line {frame.f_lineno} ({code.co_name})"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """From the outermost to the innermost: of coroutines, generators and async generators."""
    for _ in range(1000):
        for kind in ("cr", "gi", "ag"):
            if (frame := getattr(awaited, f"{kind}_frame", None)) is not None:
                yield frame
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return
