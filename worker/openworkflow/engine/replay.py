"""Replays a recorded history against code, to find out whether that code could go on with it.

Nothing is executed: recorded steps answer with what they recorded, and the first step that is not
recorded ends the replay. What the function does outside its steps does run, as in any replay.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from openworkflow.backend.records import ClaimedRun, RecordedStep, Write
from openworkflow.core.errors import NonDeterminism, Stalled
from openworkflow.core.failure import Failure
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT
from openworkflow.core.step_attempt import StepKind
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.execution import Execution
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.history import History
from openworkflow.engine.journal import DatabaseClock, Written
from openworkflow.engine.keys import PATCHED
from openworkflow.engine.outcome import Failed, Outcome, Rescheduled, Undoing
from openworkflow.engine.services import Limits, Services
from openworkflow.engine.threads import Threads
from openworkflow.telemetry.metrics import Metrics

BLOCKED = "Blocked"
"""The cause of a run that waits for something that is no step."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run and its history, as far as a replay needs them."""

    run: ClaimedRun
    status: RunStatus
    steps: Sequence[RecordedStep]
    error_type: str | None = None
    """The type of the error that a failed run ended with."""
    build_id: str | None = None

    @property
    def patches(self) -> set[str]:
        """The patches whose new path it took."""
        keys = (step.step_name for step in self.steps)
        return {key.removeprefix(PATCHED) for key in keys if key.startswith(PATCHED)}


@dataclass(frozen=True, slots=True)
class Break:
    """Why the code cannot go on with a run."""

    cause: str
    """NonDeterminism, SerializationError, Blocked, or the type of what the code raised."""
    message: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay went."""

    found: Break | None
    asked: frozenset[str]
    """The patches that the code asked about."""


class Tape:
    """Stands for the journal: takes every write, and writes nothing."""

    def __init__(self) -> None:
        self.clock = DatabaseClock(datetime.now(UTC))

    def write(self, row: Write) -> Written:
        """Drop the row, and answer that it is durable."""
        written = Written(loop=asyncio.get_running_loop())
        written.told = None
        written.settle(True)
        return written

    def write_together(self, rows: Sequence[Write]) -> Written:
        """Drop the rows, and answer that they are durable."""
        return self.write(rows[0])

    def append(self, written: Written, row: Write) -> bool:
        """Nothing waits here to be sent."""
        return False


class Replayer:
    """Replays runs one at a time or together; use it as a context."""

    def __init__(self, timeout: timedelta = timedelta(seconds=5)) -> None:
        self._timeout = timeout.total_seconds()
        self._threads = Threads(8, "openworkflow-replay")

    def __enter__(self) -> "Replayer":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.close()

    async def replay(self, recorded: RecordedRun, workflow: Workflow[Any, Any]) -> Replayed:
        """Replay one run; what its code raises becomes the answer."""
        tape: Any = Tape()
        services = Services(
            tape,
            Metrics("replay"),
            self._threads,
            self._threads,
            DEFAULT_PAYLOAD_LIMIT,
            LeaseGuard(),
            Limits(0),
            rest_seconds=0.0,
        )
        # What was undone is the end of the run, not of its function.
        steps = [row for row in recorded.steps if row.kind != StepKind.UNDO]
        history = History(steps)
        execution = Execution(recorded.run, workflow, history, services)
        execution.draining = True  # it hands back before a new step, and there is none running
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await execution.run()
        except TimeoutError:
            found: Break | None = Break(
                BLOCKED,
                "the function waits for something that is no step; whatever it does outside its "
                "steps is done again by every replay, so it belongs into one",
            )
        else:
            found = _judged(outcome, recorded)
            if found is not None and len(steps) < len(recorded.steps):
                # It may have been canceled, or have failed by something that is not repeated.
                found = found if found.cause.endswith(f":{NonDeterminism.__name__}") else None
        asked = execution.patches.asked if execution.patches is not None else ()
        return Replayed(found, frozenset(asked))


def _judged(outcome: Outcome, recorded: RecordedRun) -> Break | None:
    """Why the code cannot go on; None if it ends with its history, or as the run did before."""
    if not isinstance(outcome, Failed | Rescheduled | Undoing):
        return None
    failure: Failure = outcome.failure
    if recorded.status is RunStatus.FAILED and failure.type == recorded.error_type:
        return None
    stalled = failure.type.endswith(f":{Stalled.__qualname__}")
    return Break(BLOCKED if stalled else failure.type, failure.message)
