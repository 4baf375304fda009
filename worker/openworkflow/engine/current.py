"""Who am I: what a step's function may know of the step that calls it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.core.duration import Duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.progress import checked_topic, encoded_event, encoded_status
from openworkflow.engine import rated
from openworkflow.engine.telling import EVENTS, STATUS
from openworkflow.telemetry.logs import log_step

logger = logging.getLogger(__name__)

TELL_SECONDS = 60.0
"""A thread waits so long for its worker's loop, which is blocked where that takes longer."""


_pausing: set["asyncio.Task[None]"] = set()


class _Place:
    """Where a step tells something: no fields, which are data that may be copied and kept."""

    __slots__ = ("_call", "_execution")

    _execution: Any
    _call: Any


@dataclass(frozen=True, slots=True)
class CurrentStep(_Place):
    """One attempt of a step, while its function runs."""

    run_id: UUID
    workflow_name: str
    name: str
    """The step's key, as `runs show` has it: its name, or `name:1` where the name came before."""
    attempt: int
    """Counts from 1; one that was cut short by a crash is made again under its number."""
    key: str
    """An idempotency key for the step's effects: the same for all its attempts, whoever makes
    them, and for no other step of any run."""

    def emit(self, topic: str, value: Any = None) -> None:
        """Append an event to those of the run, for `run.events(topic)`; also from a thread.

        In order, and durable before the step's result is. An attempt that is made again emits
        again: the event says which attempt it is from. Its value may have 64 KiB as JSON. Raises
        SerializationError, ConfigurationError once the attempt is over, and TooManyEvents while
        the database does not take what was emitted before.
        """
        self._tell(EVENTS + checked_topic(topic), encoded_event(topic, value))

    def set_status(self, value: Any) -> None:
        """Say how far the run has come, for `run.progress()`: the last one counts.

        Up to 4 KiB as JSON; also from a thread. Raises as `emit` does.
        """
        self._tell(STATUS, encoded_status(value))

    def pause_limit(self, name: str, until: datetime | Duration) -> None:
        """Let no step at this rate be called until then, or for so long, in any run.

        For a function that was told to wait (429), which then raises and is tried again. From a
        thread it is stored once this returns, else soon after. Raises ConfigurationError.
        """
        rated.check_pause(name, until)
        execution = self._execution
        loop = execution.task.get_loop()
        pausing = rated.pause(execution, name, until)
        if threading.get_ident() != execution.services.thread:
            asyncio.run_coroutine_threadsafe(pausing, loop).result(TELL_SECONDS)
            return
        task = loop.create_task(pausing)
        _pausing.add(task)
        task.add_done_callback(_paused)

    def _tell(self, channel: str, text: str | None) -> None:
        execution = self._execution

        def tell() -> None:
            execution.telling().tell_of_step(channel, text, self._call)

        if threading.get_ident() == execution.services.thread:
            tell()
            return
        told: Future[None] = Future()
        execution.task.get_loop().call_soon_threadsafe(_resolve, told, tell)
        told.result(TELL_SECONDS)


def current_step() -> CurrentStep:
    """The step whose function is running, async or in a thread.

    Raises ConfigurationError anywhere else.
    """
    operation = current_operation()
    execution, call = operation.execution, operation.attempt
    me = CurrentStep(
        execution.claim.id,
        execution.workflow.name,
        operation.key,
        1 if call is None else call.attempt,
        stable_key(operation),
    )
    object.__setattr__(me, "_execution", execution)
    object.__setattr__(me, "_call", call)
    return me


def current_operation() -> Any:
    """The operation whose function is running; see `current_step`."""
    operation = log_step.get()
    if operation is None:
        raise ConfigurationError(
            "current_step() is for the functions that a workflow calls as steps; in the workflow "
            "itself there are step.run_id, step.attempt and step.key"
        )
    return operation


def run_key(claim: Any) -> str:
    """What begins the keys of a run: another one once the run has continued as new."""
    return f"{claim.id}" if not claim.history_from else f"{claim.id}+{claim.history_from}"


def stable_key(operation: Any) -> str:
    """The key of a step's effects, by its call: which branch asks, and how often it did before.

    Not by what its rows are called: where branches share a name, that is decided by who was first.
    A step that was undone and is done again has another one: under the old one its effect would be
    taken for done. What undoes it has a key of its own.
    """
    if (undone := getattr(operation, "undoes", None)) is not None:
        return f"{stable_key(undone)}/undo"
    execution = operation.execution
    call = execution.history.keys.requested.get(operation.key)
    start = f"{run_key(execution.claim)}/{operation.name}"
    undone = execution.history.undo
    if undone is not None and (rounds := undone.rounds[operation.key]):
        start += f"~{rounds}"
    if call is None or (not call.path and not call.nth):
        return start
    return f"{start}:{call.nth}@{call.path}"


def _paused(task: "asyncio.Task[None]") -> None:
    _pausing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("a limit could not be paused: %s", error)


def _resolve(told: "Future[None]", tell: Callable[[], None]) -> None:
    try:
        tell()
    except BaseException as error:
        told.set_exception(error)
    else:
        told.set_result(None)
