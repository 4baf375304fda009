"""`step.emit`, `step.set_status` and `step.tag`: a workflow function tells, and does not wait."""

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.progress import checked_topic, encoded_event, encoded_status
from openworkflow.core.tags import encode_tags
from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine.telling import EVENTS, STATUS, Teller

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution
    from openworkflow.engine.program import AsyncProgram
    from openworkflow.engine.thread_program import ThreadProgram


class Tells:
    """What `step` has to tell something with; none of it is awaited.

    It is sent with what else the worker has to send. The run goes on meanwhile, and does not end,
    or wait, before it is stored. What a replay repeats is not told again.
    """

    __slots__ = ()

    def emit(self, topic: str, value: Any = None) -> None:
        """Append an event to those of this run, for `run.events(topic)`: once, and in order.

        Its value may have 64 KiB as JSON. Raises SerializationError or ConfigurationError; a run
        that emits more than 100,000 events fails with TooManyEvents.
        """
        text = encoded_event(checked_topic(topic), value)
        self._tell("emit", topic, lambda teller: teller.tell(EVENTS + topic, text))

    def set_status(self, value: Any) -> None:
        """Say how far the run has come, for `run.progress()`: the last one counts.

        Up to 4 KiB as JSON. Raises SerializationError.
        """
        text = encoded_status(value)
        self._tell("set_status", "status", lambda teller: teller.tell(STATUS, text))

    def tag(self, **tags: str) -> None:
        """Add tags to this run, or change them: people find it by them, as by those of its start.

        Raises ConfigurationError.
        """
        if (text := encode_tags(tags)) is not None:
            self._tell("tag", "tags", lambda teller: teller.tag(text))

    def _tell(self, what: str, name: str, tell: Callable[[Teller], None]) -> None:
        raise NotImplementedError


class AsyncTells(Tells):
    """For async workflow functions."""

    __slots__ = ()

    _execution: "Execution"
    _program: "AsyncProgram"

    def _tell(self, what: str, name: str, tell: Callable[[Teller], None]) -> None:
        if asyncio._get_running_loop() is not self._program.loop:
            raise _inside_a_step(what)
        self._execution.check_stopped()
        tell(self._execution.telling())


class ThreadTells(Tells):
    """For plain workflow functions: what is told under one name is told by one thread."""

    __slots__ = ()

    _execution: "Execution"
    _program: "ThreadProgram"

    def _tell(self, what: str, name: str, tell: Callable[[Teller], None]) -> None:
        if current_run.get() is INSIDE_STEP:
            raise _inside_a_step(what)
        thread = threading.get_ident()

        def answer() -> None:
            self._execution.check_stopped()
            self._program.check_thread(f"{what}:{name}", thread)
            tell(self._execution.telling())

        self._program.answer(answer)


def _inside_a_step(what: str) -> ConfigurationError:
    instead = "have the workflow do it" if what == "tag" else f"use current_step().{what} there"
    return ConfigurationError(
        f"step.{what} is called inside a step, which a replay would not repeat; {instead}"
    )
