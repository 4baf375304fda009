"""The rows of a claim: what is written for an attempt that is short, long, failed or cut short."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from openworkflow.backend.records import Leftover, RunEnd, StepSuccess, StepWrite
from openworkflow.core.envelope import Opened
from openworkflow.core.errors import BackendError, Fault, SerializationError
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun, RecordedStep
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.engine.journal import DatabaseClock, Journal, Written
from openworkflow.engine.outcome import Completed, run_end
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.step_call import StepCall, waiting

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BROKEN = Failure(type="x:Y", message="broken")


class Desk:
    """A recorder over a real journal whose batches are sent by hand."""

    def __init__(self) -> None:
        self.claim = ClaimedRun(
            uuid4(), "w", None, None, 7, 0, 0, None, NOW, NOW, recovered=False, has_history=True
        )
        self.journal = Journal(DatabaseClock(NOW))
        self.lost = 0
        self.recorder = Recorder(self.claim, self.journal, self._lose, completions=4)
        self.sent: list[list[Any]] = []

    def _lose(self) -> None:
        self.lost += 1

    def call(self, key: str = "a", attempt: int = 1, context: str | None = None) -> StepCall:
        call = StepCall(key, attempt, context)
        self.recorder.begin(call)
        return call

    def send(self, *, held: bool = True) -> list[Any]:
        """Send what there is, as one statement; returns its rows."""
        batch = self.journal.take(1_000)
        rows = [row for written in batch.entries for row in written.rows]
        self.sent.append(rows)
        batch.settle(() if held else [row[0] for row in rows])
        return rows

    async def settle(self) -> list[Any]:
        """Send until nothing is left; returns the rows of all statements."""
        first = len(self.sent)
        for _ in range(10):
            await asyncio.sleep(0)
            self.send()
        return [row for rows in self.sent[first:] for row in rows]


@pytest.fixture
async def desk() -> Desk:
    return Desk()


def statuses(rows: list[Any]) -> list[tuple[str, bool]]:
    return [
        (row.status.value, row.update)
        if isinstance(row, StepWrite)
        else (type(row).__name__, False)
        for row in rows
    ]


async def test_a_short_step_is_one_insert_at_its_end(desk: Desk) -> None:
    call = desk.call()
    desk.recorder.announce(60)
    desk.recorder.succeeded(call, "1")

    (row,) = desk.send()

    assert isinstance(row, StepSuccess)
    assert (call.id, 7, "a", "1", 5) == (
        row.id,
        row.claim_no,
        row.step_name,
        row.output,
        row.completion_no,
    )


async def test_a_long_step_is_announced_once_and_its_end_updates_that_row(desk: Desk) -> None:
    call = desk.call()
    desk.recorder.announce(-1)
    desk.recorder.announce(-1)
    assert [("running", False)] == statuses(desk.send())

    desk.recorder.succeeded(call, "1")

    assert [("succeeded", True)] == statuses(desk.send())


async def test_ends_are_numbered_in_the_order_in_which_they_are_recorded(desk: Desk) -> None:
    a, b, c = desk.call("a"), desk.call("b"), desk.call("c")
    desk.recorder.failed(b, BROKEN, None)
    desk.recorder.succeeded(c, None)
    desk.recorder.succeeded(a, None)

    assert [("b", 5), ("c", 6), ("a", 7)] == [
        (row.step_name, row.completion_no) for row in desk.send()
    ]


async def test_a_failure_to_be_tried_again_has_no_number(desk: Desk) -> None:
    desk.recorder.failed(desk.call(), BROKEN, NOW)

    (row,) = desk.send()

    assert (None, NOW, None) == (row.completion_no, row.resume_at, row.context)
    assert 4 == desk.recorder.completions


async def test_the_last_failure_says_that_it_is_final_beside_what_its_row_says_already(
    desk: Desk,
) -> None:
    desk.recorder.failed(desk.call(context='{"branch": "1"}'), BROKEN, None)

    (row,) = desk.send()

    assert {"branch": "1", "final": True} == json.loads(row.context)


@pytest.mark.parametrize("how", ["cancel", "close_calls", "close_all"])
async def test_an_update_never_travels_with_the_insert_of_its_row(desk: Desk, how: str) -> None:
    call = desk.call()
    desk.recorder.announce(-1)
    match how:
        case "cancel":
            desk.recorder.cancel(call)
        case "close_calls":
            desk.recorder.close_calls("drained")
        case "close_all":
            desk.recorder.close_all("over")

    assert [("running", False)] == statuses(desk.send())
    assert [("failed", True)] == statuses(await desk.settle())


async def test_the_end_of_the_run_comes_after_the_rows_that_it_closes(desk: Desk) -> None:
    """A late update would be refused, and the row would say `running` forever."""
    desk.call()
    desk.recorder.announce(-1)
    desk.recorder.close_all("over")
    end = run_end(desk.claim, Completed(None), progress=True)
    assert end is not None

    ended = asyncio.ensure_future(desk.recorder.end(end))
    rows = await desk.settle()

    assert await ended
    assert rows[-1] is end
    assert [("running", False), ("failed", True)] == statuses(rows[:-1])


async def test_the_end_of_the_run_comes_after_the_rows_that_it_closes_beside_a_last_step(
    desk: Desk,
) -> None:
    call = desk.call()
    desk.recorder.announce(-1)
    desk.recorder.succeeded(desk.call("b"), None)
    desk.recorder.close_all("over")
    end = run_end(desk.claim, Completed(None), progress=True)
    assert end is not None
    assert call.announced is not None

    ended = asyncio.ensure_future(desk.recorder.end(end))
    rows = await desk.settle()

    assert await ended
    assert rows[-1] is end
    assert ("failed", True) in statuses(rows[:-1])


async def test_the_end_of_the_run_travels_with_its_last_step(desk: Desk) -> None:
    desk.recorder.succeeded(desk.call(), None)
    end = run_end(desk.claim, Completed(None), progress=True)
    assert end is not None

    ended = asyncio.ensure_future(desk.recorder.end(end))
    await asyncio.sleep(0)

    assert 2 == len(desk.send())
    assert await ended


async def test_what_the_workflow_cancelled_before_it_was_announced_leaves_no_row(
    desk: Desk,
) -> None:
    desk.recorder.cancel(desk.call())
    desk.recorder.announce(-1)

    assert [] == desk.send()


async def test_a_sleep_is_one_row_that_its_end_updates(desk: Desk) -> None:
    call = waiting(StepKind.SLEEP, "nap", None)
    desk.recorder.begin_wait(call, NOW)
    (begun,) = desk.send()
    desk.recorder.end_wait(call)
    (ended,) = desk.send()

    assert (StepKind.SLEEP, StepStatus.RUNNING, NOW, None) == (
        begun.kind,
        begun.status,
        begun.resume_at,
        begun.completion_no,
    )
    assert (begun.id, StepStatus.SUCCEEDED, True, 5) == (
        ended.id,
        ended.status,
        ended.update,
        ended.completion_no,
    )


async def test_a_cancelled_sleep_says_so_in_its_row(desk: Desk) -> None:
    call = StepCall("nap", 1)
    desk.recorder.begin_wait(call, NOW)
    desk.send()
    desk.recorder.cancel(call)

    (row,) = desk.send()

    assert {"canceled": True} == json.loads(row.context)
    assert row.completion_no is None


async def a_nap(desk: Desk) -> StepCall:
    call = StepCall("nap", 1)
    desk.recorder.begin_wait(call, NOW)
    desk.send()
    await desk.recorder.durable()
    return call


async def test_a_cancellation_travels_with_the_event_that_led_to_it(desk: Desk) -> None:
    """As a write of its own it was durable without it, where another statement was quicker."""
    nap = await a_nap(desk)
    desk.recorder.succeeded(desk.call(), "1")
    desk.recorder.cancel(nap)

    batch = desk.journal.take(1)

    assert [("StepSuccess", False), ("failed", True)] == statuses(batch.entries[0].rows)
    batch.settle(())


@pytest.mark.parametrize("under_way", [1, 2])
async def test_a_cancellation_comes_after_all_that_is_under_way(desk: Desk, under_way: int) -> None:
    nap = await a_nap(desk)
    for key in "ab"[:under_way]:
        desk.recorder.succeeded(desk.call(key), "1")
    batches = [desk.journal.take(1) for _ in range(under_way)]
    desk.recorder.cancel(nap)
    end = run_end(desk.claim, Completed("1"), progress=True)
    assert end is not None
    ends = asyncio.create_task(desk.recorder.end(end))

    for batch in batches[::-1]:
        await asyncio.sleep(0)
        assert [] == desk.send()
        batch.settle(())
    await desk.settle()

    assert [[("failed", True)], [("Completion", False)]] == [
        statuses(rows) for rows in desk.sent if rows
    ][1:]
    assert await ends


async def test_a_sleep_outlives_a_drain_but_not_the_run(desk: Desk) -> None:
    call = StepCall("nap", 1)
    desk.recorder.begin_wait(call, NOW)
    desk.send()

    desk.recorder.close_calls("drained")
    assert [] == desk.send()

    desk.recorder.close_all("over")
    assert [("failed", True)] == statuses(desk.send())


async def test_rows_that_a_dead_worker_left_are_closed_as_interrupted(desk: Desk) -> None:
    left: UUID = uuid4()
    desk.recorder.close([left], "its worker died")

    (row,) = desk.send()

    assert (left, True) == (row.id, row.update)
    assert {"interrupted": True} == json.loads(row.context)


async def test_a_lost_claim_is_told_and_nothing_is_durable(desk: Desk) -> None:
    desk.recorder.succeeded(desk.call(), None)
    desk.send(held=False)

    assert not await desk.recorder.durable()
    assert (1, False) == (desk.lost, desk.recorder.progress)


async def test_a_result_that_the_database_refuses_is_an_error_that_names_its_step(
    desk: Desk,
) -> None:
    desk.recorder.succeeded(desk.call("odd"), '"\\u0000"')
    batch = desk.journal.take(10)
    written: Written = batch.entries[0]
    written.refuse(BackendError("unsupported Unicode").of(Fault.VALUE), written.rows[0])

    with pytest.raises(SerializationError, match=r"result of step 'odd': unsupported Unicode"):
        await desk.recorder.durable()
    assert not desk.recorder.pending


async def test_the_attempts_of_a_run_are_counted_sleeps_too(desk: Desk) -> None:
    desk.call("a")
    desk.call("b", attempt=2)
    desk.recorder.begin_wait(StepCall("nap", 1), NOW)

    assert 3 == desk.recorder.attempts


async def test_events_of_earlier_claims_are_recorded_again_together_and_as_they_were(
    desk: Desk,
) -> None:
    """Were some of them durable and some not, their order would be another than was seen."""
    ended, slept = (
        RecordedStep(key, kind, "succeeded", 2, 1, "1", None, None, None, uuid4(), 9)
        for key, kind in (("a", "run"), ("nap", "sleep"))
    )
    desk.recorder.record_again([ended, slept])
    desk.recorder.succeeded(desk.call("b"), None)

    (first, second), (third,) = (written.rows for written in desk.journal.take(10).entries)

    assert [(ended.id, "run", "1", 5, 7), (slept.id, "sleep", "1", 6, 7)] == [
        (each.id, each.kind, each.output, each.completion_no, each.claim_no)
        for each in (first, second)
        if isinstance(each, StepWrite) and each.update
    ]
    assert isinstance(third, StepSuccess)
    assert 7 == third.completion_no


async def test_a_mark_is_no_event(desk: Desk) -> None:
    desk.recorder.mark(StepCall("patched:x", 1), "true")

    (row,) = desk.send()

    assert row.completion_no is None
    assert 4 == desk.recorder.completions


async def test_the_end_of_a_failed_run_is_not_lost_when_rows_wait(desk: Desk) -> None:
    """Two entries are under way: the end waits for both, and travels by itself."""
    desk.recorder.succeeded(desk.call("a"), None)
    desk.recorder.succeeded(desk.call("b"), None)
    end = run_end(desk.claim, Completed(None), progress=True)
    assert end is not None

    ended = asyncio.ensure_future(desk.recorder.end(end))
    rows = await desk.settle()

    assert await ended
    assert rows[-1] is end
    assert not any(isinstance(row, RunEnd | StepWrite) for row in rows[:-1])


# -- rows that nobody else would end -------------------------------------------------------------


async def test_of_a_lost_claim_the_rows_are_named_that_may_still_say_running(desk: Desk) -> None:
    """Those that have no end, and those whose end was not taken; after all that is on its way."""
    ended, going_on = desk.call("ended"), desk.call("going-on")
    desk.recorder.announce(-1)
    await desk.settle()
    desk.recorder.succeeded(ended, "1")
    desk.recorder.begin_wait(nap := StepCall("nap", 1), NOW)
    desk.recorder.succeeded(desk.call("short"), "1")

    leaving = asyncio.ensure_future(desk.recorder.leave())
    await asyncio.sleep(0)
    first = desk.send(held=False)
    rest = await desk.settle()
    await leaving

    assert Leftover not in map(type, first)
    assert {Leftover(call.id, desk.claim.id) for call in (ended, going_on, nap)} == set(rest)


async def test_a_row_whose_end_was_refused_is_open_again_and_cut_short_once(desk: Desk) -> None:
    call = desk.call()
    desk.recorder.announce(-1)
    await desk.settle()
    await desk.recorder.durable()
    desk.recorder.succeeded(call, "1")
    for left_open in (1, 0):
        (written,) = desk.recorder.pending
        written.refuse(BackendError("no").of(Fault.VALUE), written.rows[0])

        with pytest.raises(SerializationError):
            await desk.recorder.durable()

        assert left_open == len(desk.recorder.open)
        desk.recorder.close_all("the run ended")
    assert not desk.recorder.pending


async def test_a_row_that_is_recorded_again_is_stored_as_it_was_encoded(desk: Desk) -> None:
    outputs = Opened.of('"plain"', '{"$ow":{}}'), '"as it is"'

    desk.recorder.record_again(
        [
            RecordedStep(key, "run", "succeeded", 1, 6, output, None, None, None, uuid4(), 5)
            for key, output in zip("ab", outputs, strict=True)
        ]
    )

    assert ['{"$ow":{}}', '"as it is"'] == [row.output for row in desk.send()]
