"""The order in which `asyncio.as_completed` makes tasks, which it does not keep itself."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from openworkflow.core.errors import ConfigurationError


def of_as_completed(frame: Any) -> list[Coroutine[Any, Any, Any]] | None:
    """The coroutines that `asyncio.as_completed` was given, in order, if that makes the task.

    It puts them into a set, whose order is another in each process, and then makes their tasks:
    so all are made at once, in the order given. Raises ConfigurationError where that is not known.
    """
    for _ in range(4):
        if frame is None or frame.f_globals.get("__name__") != "asyncio.tasks":
            return None
        if frame.f_code.co_name == "as_completed" or "_AsCompletedIterator" in str(
            getattr(frame.f_code, "co_qualname", "")
        ):
            given = frame.f_locals.get("fs", frame.f_locals.get("aws"))
            if isinstance(given, list | tuple):
                return list(
                    {id(each): each for each in given if asyncio.iscoroutine(each)}.values()
                )
            raise ConfigurationError(
                "asyncio.as_completed makes tasks of coroutines in an order that changes; give it "
                "a list, or make the tasks first: [asyncio.create_task(each) for each in ...]"
            )
        frame = frame.f_back
    return None
