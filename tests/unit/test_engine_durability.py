"""When what a run has written is durable: everything, or everything up to a write."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from openworkflow.core.errors import BackendError, Fault, SerializationError
from openworkflow.core.recorded import ClaimedRun
from openworkflow.engine.journal import DatabaseClock, Journal, Written
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.step_call import StepCall

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A recorder with three steps written, each of which comes back when the test says so."""

    def __init__(self) -> None:
        claim = ClaimedRun(
            uuid4(), "w", None, None, 7, 0, 0, None, NOW, NOW, recovered=False, has_history=True
        )
        self.lost = 0
        self.recorder = Recorder(claim, Journal(DatabaseClock(NOW)), self._lose)
        for key in "abc":
            self.recorder.succeeded(StepCall(key, 1), None)
        self.first, self.second, self.third = self.recorder.pending

    def _lose(self) -> None:
        self.lost += 1

    def ask(self, last: Written | None = None) -> asyncio.Task[bool]:
        return asyncio.create_task(self.recorder.durable(last))


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def moments() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_was_written_later_is_not_waited_for(desk: Desk) -> None:
    durable = desk.ask(desk.second)
    desk.first.settle(True)
    desk.second.settle(True)

    assert await durable
    assert [desk.third] == list(desk.recorder.pending)


async def test_a_write_that_overtook_those_before_it_does_not_speak_for_them(desk: Desk) -> None:
    """Two flushers take turns, and the second may be back before the first."""
    durable = desk.ask(desk.third)
    desk.third.settle(True)
    desk.second.settle(True)
    await moments()
    assert not durable.done()

    desk.first.settle(True)

    assert await durable


async def test_who_asks_for_what_is_durable_already_does_not_wait(desk: Desk) -> None:
    for written in (desk.first, desk.second):
        written.settle(True)
    assert await desk.ask(desk.second)

    assert await desk.ask(desk.first)
    assert desk.recorder.pending


async def test_a_claim_lost_at_an_earlier_write_is_told(desk: Desk) -> None:
    desk.first.settle(False)
    desk.second.settle(True)

    assert not await desk.ask(desk.second)
    assert 1 == desk.lost


async def test_a_refusal_is_told_once_by_the_name_of_its_step_however_many_wait(
    desk: Desk,
) -> None:
    waiting = [desk.ask(desk.third), desk.ask(desk.second), desk.ask()]
    await moments()
    desk.first.settle(True)
    desk.second.refuse(BackendError("too large").of(Fault.VALUE), desk.second.rows[0])
    desk.third.settle(True)
    await asyncio.wait(waiting)

    (told,) = [error for task in waiting if (error := task.exception()) is not None]
    assert isinstance(told, SerializationError)
    assert "result of step 'b': too large" in str(told)
    assert not desk.recorder.pending
