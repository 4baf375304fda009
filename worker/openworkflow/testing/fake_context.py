"""What the function of a step finds where a fake calls it: `current_step()`, and plain `@step`s."""

import asyncio
import contextlib
import inspect
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine.telling import EVENTS
from openworkflow.telemetry.logs import log_step


@contextlib.contextmanager
def inside_step(fake: Any, key: str, workflow: str) -> Iterator[None]:
    """For as long as a step's function is called."""
    run, step = current_run.set(INSIDE_STEP), log_step.set(_operation(fake, key, workflow))
    try:
        yield
    finally:
        log_step.reset(step)
        current_run.reset(run)


async def awaited(value: Any) -> Any:
    """A value, awaited where it is to be."""
    return await value if inspect.isawaitable(value) else value


def waited(value: Any) -> Any:
    """A value; what is to be awaited is, on a loop of its own."""
    if not inspect.isawaitable(value):
        return value
    if asyncio._get_running_loop() is None:
        return asyncio.run(awaited(value))
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, awaited(value)).result()


def _operation(fake: Any, key: str, workflow: str) -> Any:
    """The part of an operation that `current_step` asks for."""

    def tell_of_step(channel: str, text: str | None, _call: object) -> None:
        value = None if text is None else json.loads(text)
        if channel.startswith(EVENTS):
            fake.emit(channel.removeprefix(EVENTS), value)
        else:
            fake.set_status(value)

    execution = SimpleNamespace(
        claim=SimpleNamespace(id=fake.run_id, history_from=0),
        workflow=SimpleNamespace(name=workflow),
        history=SimpleNamespace(keys=SimpleNamespace(requested={}), undo=None),
        services=SimpleNamespace(thread=threading.get_ident()),
        telling=lambda: SimpleNamespace(tell_of_step=tell_of_step),
    )
    return SimpleNamespace(execution=execution, attempt=None, key=key, name=key)
