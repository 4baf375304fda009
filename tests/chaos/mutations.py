"""Broken copies of the engine: defects that the campaign's checker must catch.

Each is built into a worker process at its start. `scenario` names the shortest course of events
that shows it (scenarios.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openworkflow.backend.records import StepSuccess
from openworkflow.backend.session import WorkerSession
from openworkflow.core.ids import uuid7
from openworkflow.engine.execution import Execution
from openworkflow.engine.history import History
from openworkflow.engine.outcome import Lost
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.telling import Teller
from tests.chaos import evidence
from tests.chaos.defects import Mutation, patch, statement
from tests.chaos.more_mutations import MORE_MUTATIONS, forget_history


def _record_late() -> None:
    async def durable(self: Recorder, last: Any = None) -> bool:
        return True

    patch(Recorder, "durable", durable)


def _ignore_order() -> None:
    order = History._order

    def by_name(self: History, reopened: Any) -> None:
        order(self, reopened)
        numbers = sorted(number for number, _ in self._strict)
        names = sorted(key for _, key in self._strict)
        self._strict = deque(zip(numbers, names, strict=True))

    patch(History, "_order", by_name)


def _ignore_losses() -> None:
    interrupt = Execution.interrupt

    def deaf(self: Execution, outcome: Any) -> None:
        if not isinstance(outcome, Lost):
            interrupt(self, outcome)

    patch(Execution, "interrupt", deaf)


def _drop_last_step() -> None:
    def end_with_step(self: Recorder, end: Any) -> Any:
        for written in self.pending:
            if written.unsent:
                written.rows[:] = [end]
                return written
        return None

    patch(Recorder, "end_with_step", end_with_step)


def _ignore_deadline() -> None:
    patch(Execution, "_watch_deadline", lambda self: None)
    patch(Execution, "_refusal", lambda self: None)


def _resend_anew() -> None:
    flush = WorkerSession.flush

    async def anew(self: WorkerSession, batch: Any) -> Any:
        rows = dict(batch.rows)
        if StepSuccess in rows:
            rows[StepSuccess] = [row._replace(id=uuid7()) for row in rows[StepSuccess]]
        return await flush(self, replace(batch, rows=rows))

    patch(WorkerSession, "flush", anew)


def _never_retry() -> None:
    failed = Recorder.failed
    patch(Recorder, "failed", lambda self, call, failure, at: failed(self, call, failure, None))


def _tell_again() -> None:
    patch(Teller, "_is_new", lambda self, telling: True)


MUTATIONS: Mapping[str, Mutation] = {
    "steps-unfenced": Mutation(
        "a lost claim records steps",
        statement(
            (
                "flush_steps",
                "run.claim_no = step.claim_no and run.worker_id = :worker_id",
                ":worker_id::text is not null",
            )
        ),
        "frozen",
        evidence.FENCE,
    ),
    "ends-unfenced": Mutation(
        "a lost claim ends its run",
        statement(
            (
                "flush_ends",
                "run.claim_no = ending.claim_no and run.worker_id = :worker_id",
                ":worker_id::text is not null",
            )
        ),
        "frozen at the end",
        evidence.RESULTS,
    ),
    "lease-ignored": Mutation(
        "runs are taken from workers that are alive",
        statement(("claim_lease_arm", "and available_at <= now()", "")),
        "two workers",
        evidence.REPEATS,
    ),
    "claim-no-kept": Mutation(
        "a claim is not told from the one before",
        statement(("claim_taken", "claim_no = claim_no + 1", "claim_no = greatest(claim_no, 1)")),
        "calm",
        evidence.CALLED,
    ),
    "recorded-late": Mutation(
        "the next step does not wait", _record_late, "locked and killed", evidence.CALLED
    ),
    "history-forgotten": Mutation(
        "a replay knows of no result", forget_history, "calm", evidence.CALLED
    ),
    "order-ignored": Mutation(
        "a replay hands out results by name", _ignore_order, "calm", evidence.ENDS
    ),
    "losses-ignored": Mutation(
        "nobody hears of a cancel", _ignore_losses, "canceled", evidence.RESTS
    ),
    "last-step-dropped": Mutation(
        "an end travels without its step", _drop_last_step, "calm", evidence.ROWS
    ),
    "deadline-ignored": Mutation(
        "a deadline stops nothing", _ignore_deadline, "calm", evidence.ENDS
    ),
    "resent-anew": Mutation(
        "a row sent again is another row", _resend_anew, "answer lost", evidence.INVARIANTS
    ),
    "told-again": Mutation(
        "a replay tells again what was told", _tell_again, "calm", evidence.TOLD
    ),
    "never-retried": Mutation("the first failure is the last", _never_retry, "calm", evidence.ENDS),
    **MORE_MUTATIONS,
}
