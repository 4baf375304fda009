"""How entries are sent: shared, again after a lost connection, one by one after a refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from openworkflow.backend.records import (
    ClaimedRun,
    ClaimRequest,
    Completion,
    Flush,
    Flushed,
    StepSuccess,
    Wake,
    Write,
)
from openworkflow.core.errors import BackendError, ConnectionLost, Fault
from openworkflow.core.ids import uuid7
from openworkflow.engine import flusher as flusher_module
from openworkflow.engine import waiting
from openworkflow.engine.flusher import MOST_LOSSES_ALONE, Flusher
from openworkflow.engine.journal import DatabaseClock, Journal, Refused
from openworkflow.telemetry.metrics import Metrics
from tests.helpers import eventually

A, B = UUID(int=1), UUID(int=2)
NOW = datetime(2040, 1, 1, tzinfo=UTC)


class Database:
    """Stands for the session; takes every row that `refuses` does not."""

    def __init__(self) -> None:
        self.statements: list[list[Write]] = []
        self.sizes: list[int] = []
        self.claims: list[ClaimRequest | None] = []
        self.released: list[tuple[str, list[UUID]]] = []
        self.refuses: Callable[[Write], bool] = lambda _: False
        self.fault = Fault.VALUE
        self.reads_all = False
        self.bears = 1000
        self.lets_claim = True
        self.refuses_claims_for = Fault.TABLE
        self.breaks: Exception | None = None
        self.loses: set[UUID] = set()
        self.outages = 0
        self.hold: asyncio.Event | None = None
        self.gates: list[asyncio.Event] = []
        self.release_fails: Exception | None = None
        self.while_releasing: list[Callable[[], object]] = []
        self.looks = 0
        self.strays: list[Any] = []
        self.claimed: list[ClaimedRun] = []

    async def flush(self, flush: Flush) -> Flushed:
        rows = [row for rows in flush.rows.values() for row in rows]
        if self.hold is not None:
            await self.hold.wait()
        if self.gates:
            await self.gates.pop(0).wait()
        if self.outages:
            self.outages -= 1
            raise ConnectionLost("gone").of(Fault.SERVER, in_doubt=True)
        self.sizes.append(len(rows))
        if len(rows) > self.bears:
            raise BackendError("statement timeout").of(Fault.SIZE)
        self.claims.append(flush.claim)
        if flush.claim is not None and not self.lets_claim:
            raise BackendError("permission denied").of(self.refuses_claims_for)
        if self.breaks is not None and any(self.refuses(row) for row in rows):
            raise self.breaks
        if bad := [row for row in rows if self.refuses(row)]:
            raise BackendError(f"cannot store {bad[0]}").of(self.fault)
        self.statements.append(rows)
        return Flushed(NOW, self.loses & {row[0] for row in rows}, self.claimed)

    async def reads(self, row: Write) -> bool:
        return not self.refuses(row) or self.reads_all

    async def release_unknown(
        self, worker_id: str, held: list[UUID], *, expired: bool = False
    ) -> list[UUID]:
        if expired:
            self.looks += 1
            return self._look()
        if self.release_fails is not None:
            raise self.release_fails
        self.released.append((worker_id, list(held)))
        while self.while_releasing:
            self.while_releasing.pop()()
        return []

    def _look(self) -> list[UUID]:
        found = self.strays.pop(0) if self.strays else []
        if isinstance(found, Exception):
            raise found
        return list(found)


class Slots:
    """Stands for the poller: asks for runs once."""

    def __init__(self, request: ClaimRequest | None = None) -> None:
        self.request = request
        self.got: list[list[ClaimedRun]] = []
        self.refusals = 0
        self.mistake: Exception | None = None
        self.first, self.brought = [A], list[UUID]()

    def take(self) -> ClaimRequest | None:
        request, self.request = self.request, None
        return request

    def settled(self, request: ClaimRequest, claimed: list[ClaimedRun], set_aside: int = 0) -> None:
        self.got.append(claimed)

    def refused(self, run_id: UUID | None) -> None:
        self.refusals += 1
        if self.mistake is not None:
            raise self.mistake

    def held(self) -> list[UUID]:
        return [*self.first, *(self.brought if self.got else [])]

    def forget_all(self) -> None:
        self.first = []


@pytest.fixture(autouse=True)
def reconnects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher_module, "RECONNECT_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE_SECONDS", 0.001)


@pytest.fixture
async def database() -> Database:
    return Database()


@pytest.fixture
async def journal() -> Journal:
    return Journal(DatabaseClock(NOW))


@pytest.fixture
async def slots() -> Slots:
    return Slots()


@pytest.fixture
def lease() -> timedelta:
    return timedelta(seconds=30)


@pytest.fixture
async def flusher(journal: Journal, database: Database, slots: Slots, lease: timedelta) -> Flusher:
    session: Any = database
    return Flusher(
        journal,
        session,
        slots,
        Metrics("test"),
        worker_id="w/1",
        lease=lease,
        batch=10,
    )


@pytest.fixture
async def running(flusher: Flusher) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(flusher.run())
    yield task
    task.cancel()
    await asyncio.wait({task})


def step(run_id: UUID, output: str = "1") -> StepSuccess:
    return StepSuccess(uuid7(), run_id, 1, "s", output, 0.001, 1)


def done(run_id: UUID, output: str | None = None) -> Completion:
    return Completion(run_id, 1, output)


def is_bad(row: Write) -> bool:
    return getattr(row, "output", None) == "bad"


async def test_what_has_gathered_shares_a_statement(
    journal: Journal, database: Database, running: object
) -> None:
    rows: list[Write] = [step(A), step(B), done(A)]

    assert [True] * 3 == await asyncio.gather(*(journal.write(row) for row in rows))
    assert [rows] == database.statements
    assert NOW <= journal.clock.now()


async def test_what_comes_while_one_flush_is_out_leaves_with_the_other_flusher(
    journal: Journal, database: Database, running: object
) -> None:
    database.hold = asyncio.Event()
    writes = [journal.write(step(A))]
    for _ in range(3):
        await asyncio.sleep(0)
    writes.append(journal.write(step(B)))
    for _ in range(3):
        await asyncio.sleep(0)
    late = [journal.write(done(A)), journal.write(done(B))]
    database.hold.set()

    assert [True] * 4 == await asyncio.gather(*writes, *late)
    assert [1, 1, 2] == sorted(len(statement) for statement in database.statements)


async def test_a_lost_claim_is_told_to_its_own_entry_only(
    journal: Journal, database: Database, running: object
) -> None:
    database.loses = {A}
    lost, kept = journal.write(done(A)), journal.write(done(B))

    assert (False, True) == (await lost, await kept)


async def test_after_a_lost_connection_the_same_rows_are_sent_again_and_nothing_is_claimed(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    """Whether the first statement was committed, nobody knows."""
    database.outages = 3
    slots.request = ClaimRequest(5, [])
    written = journal.write(step(A))

    assert await written
    assert [[written.rows[0]]] == database.statements
    assert ([None], [[]]) == (database.claims, slots.got)
    await eventually(lambda: database.released)
    assert [("w/1", [A])] == database.released


async def test_a_single_row_that_is_lost_again_and_again_waits_beside_the_others(
    journal: Journal, database: Database, running: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that was more than a message may hold was sent forever, and held up a flusher."""
    database.outages = MOST_LOSSES_ALONE
    written = journal.write(step(A))

    assert await written
    assert "it is sent again until the database takes it" in caplog.text


async def test_runs_that_another_claim_is_about_to_bring_are_not_handed_back(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    """They were, between its commit and its answer: executed all the same, and once more."""
    gates = [asyncio.Event(), asyncio.Event()]
    database.gates = list(gates)
    for _ in gates:
        slots.request = ClaimRequest(5, [])
        journal.kick()
        await eventually(lambda: slots.request is None)
    broken, good = gates
    database.outages = 1
    broken.set()
    assert await journal.write(step(A))  # it is sent by the flusher whose claim was lost
    assert [] == database.released

    slots.brought = [B]
    slots.request = ClaimRequest(5, [])
    good.set()

    await eventually(lambda: len(slots.got) == 3)
    assert [("w/1", [A, B])] == database.released


@pytest.mark.parametrize("error", [ConnectionLost("gone"), ValueError("odd")])
async def test_nothing_is_claimed_before_what_nobody_holds_was_handed_back(
    journal: Journal,
    database: Database,
    slots: Slots,
    flusher: Flusher,
    running: object,
    error: Exception,
) -> None:
    """This worker would never claim it again, and perhaps there is no other."""
    database.release_fails = error
    slots.request = ClaimRequest(5, [])
    flusher.strays.doubt()
    assert await journal.write(step(A))  # others are not kept waiting
    assert (True, [None]) == (flusher.strays.in_doubt, database.claims)

    database.release_fails = None
    journal.kick()  # as every poll does

    await eventually(lambda: slots.got)
    assert [("w/1", [A])] == database.released
    assert not flusher.strays.in_doubt


async def test_a_doubt_that_comes_while_runs_are_handed_back_has_more_of_them_handed_back(
    flusher: Flusher, database: Database, slots: Slots, running: object
) -> None:
    """What the first statement says is held may be what the doubt is about."""
    database.while_releasing = [slots.forget_all, flusher.strays.doubt]
    flusher.strays.doubt()

    await eventually(lambda: not flusher.strays.in_doubt)
    assert [("w/1", [A]), ("w/1", [])] == database.released


@pytest.mark.parametrize("lease", [timedelta(seconds=0.2)])
async def test_runs_of_a_claim_that_is_read_too_late_are_handed_back(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    """An event loop that was blocked for longer than a lease began runs that others had ended."""
    run = ClaimedRun(B, "w", None, None, 1, 0, 0, None, NOW, NOW, False, False)
    database.hold, database.claimed = asyncio.Event(), [run]
    slots.request = ClaimRequest(5, [])
    journal.kick()
    await eventually(lambda: slots.request is None)

    time.sleep(0.15)  # noqa: ASYNC251
    database.hold.set()

    await eventually(lambda: database.released)
    assert ([[]], [("w/1", [A])]) == (slots.got, database.released)


@pytest.mark.parametrize("lease", [timedelta(milliseconds=1)])
async def test_runs_that_a_lost_statement_claims_in_the_end_are_handed_back(
    database: Database, running: asyncio.Task[None], caplog: pytest.LogCaptureFixture
) -> None:
    """The server went on with it after its runs were handed back; a lone worker never took them."""
    database.strays = [[], ConnectionLost("gone"), ValueError("odd"), [A, B]]

    await eventually(lambda: database.looks > 4)

    assert not running.done()
    assert ["2 runs" in each.message for each in caplog.records] == [False, False, True]


async def test_a_refused_row_fails_alone_and_its_error_names_it(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses = is_bad
    rows: list[Write] = [step(A), step(A, "bad"), done(B)]
    good, bad, other = (journal.write(row) for row in rows)

    with pytest.raises(Refused, match="cannot store") as refused:
        await bad

    assert bad.rows[0] is refused.value.row
    assert (True, True) == (await good, await other)


@pytest.mark.parametrize("error", [OverflowError("date value out of range"), KeyError("x")])
async def test_a_row_that_cannot_be_encoded_fails_alone_like_a_refused_one(
    journal: Journal,
    database: Database,
    slots: Slots,
    running: asyncio.Task[None],
    error: Exception,
) -> None:
    """It ended the flusher, and with it the worker and all its runs."""
    database.refuses, database.breaks = is_bad, error
    slots.request = ClaimRequest(5, [])
    rows: list[Write] = [step(A), step(A, "bad"), done(B)]
    good, bad, other = (journal.write(row) for row in rows)

    with pytest.raises(Refused, match=type(error).__name__) as refused:
        await bad

    assert bad.rows[0] is refused.value.row
    assert (True, True) == (await good, await other)
    await eventually(lambda: slots.got and database.released)
    assert ([[]], [("w/1", [A])]) == (slots.got, database.released)
    assert not running.done()


async def test_a_refused_end_leaves_the_step_that_travelled_with_it_recorded(
    journal: Journal, database: Database, running: object
) -> None:
    """The step was called; its result is good, and a retry of the run must find it."""
    database.refuses = is_bad
    written = journal.write(step(A))
    assert journal.append(written, end := done(A, "bad"))

    with pytest.raises(Refused) as refused:
        await written

    assert refused.value.row is end
    assert [[written.rows[0]]] == database.statements


async def test_a_run_does_not_end_without_the_step_that_travelled_with_its_end(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses = is_bad
    written = journal.write(last := step(A, "bad"))
    assert journal.append(written, done(A))

    with pytest.raises(Refused) as refused:
        await written

    assert refused.value.row is last
    assert [] == database.statements


async def test_a_run_does_not_end_without_a_step_of_the_same_batch_but_other_steps_are_kept(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses = is_bad
    rows: list[Write] = [step(A, "bad"), step(A), done(A), done(B)]
    _, sibling, end, other = (journal.write(row) for row in rows)

    with pytest.raises(Refused) as refused:
        await end

    assert refused.value.row is rows[0]
    assert (True, True) == (await sibling, await other)
    assert [[rows[1]], [rows[3]]] == database.statements


async def test_a_wake_travels_with_its_end_also_where_the_batch_was_refused(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses = is_bad
    journal.write(step(B, "bad")).add_done_callback(lambda done: done.exception())
    written = journal.write(end := done(A))
    journal.append(written, Wake(B))

    assert await written
    assert [[end, Wake(B)]] == database.statements


async def test_a_lost_claim_ends_the_search_for_the_row_at_fault(
    journal: Journal, database: Database, running: object
) -> None:
    first = step(A)
    database.refuses, database.loses = is_bad, {first.id}
    written = journal.write(first)
    journal.append(written, done(A, "bad"))

    assert not await written


async def test_a_refused_flush_claims_nothing(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    database.refuses, slots.request = is_bad, ClaimRequest(5, [])
    with pytest.raises(Refused):
        await journal.write(step(A, "bad"))
    await asyncio.sleep(0)

    assert [[]] == slots.got


async def test_what_is_unwritten_when_the_flusher_stops_counts_as_lost(
    journal: Journal, database: Database, running: asyncio.Task[None]
) -> None:
    database.hold = asyncio.Event()
    sent = journal.write(step(A))
    for _ in range(3):
        await asyncio.sleep(0)
    queued = [journal.write(step(B)) for _ in range(30)]

    running.cancel()
    await asyncio.wait({running})

    assert [False] * 31 == await asyncio.gather(sent, *queued)


# -- whose fault it is -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.TABLE, Fault.MOMENT, Fault.SIZE])
async def test_a_row_that_is_refused_for_now_waits_beside_the_others(
    journal: Journal, database: Database, running: object, fault: Fault
) -> None:
    """It failed its run, although its step had succeeded."""
    database.refuses, database.fault = is_bad, fault
    good, bad = journal.write(step(A)), journal.write(step(B, "bad"))
    assert await good
    assert await journal.write(done(A))
    assert not bad.done()

    database.refuses = lambda _: False

    assert await bad


async def test_a_run_does_not_end_while_a_step_of_it_waits(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses, database.fault = is_bad, Fault.TABLE
    last = journal.write(step(A, "bad"))
    await eventually(lambda: len(database.sizes) > 2)
    end, other = journal.write(done(A)), journal.write(step(B))
    assert await other
    assert [other.rows] == database.statements
    database.refuses = lambda _: False

    assert (True, True) == (await last, await end)
    written = [row for statement in database.statements for row in statement]
    assert written.index(last.rows[0]) < written.index(end.rows[0])


async def test_ends_that_wait_for_their_steps_send_no_statement_that_is_refused(
    journal: Journal, database: Database, running: asyncio.Task[None]
) -> None:
    """It carried nothing, and looking for the row at fault in it ended the worker."""
    database.bears = -1
    last = journal.write(step(A))
    await eventually(lambda: len(database.sizes) > 2)
    end = journal.write(done(A))
    await eventually(lambda: not end.unsent)
    sent = len(database.sizes)
    await eventually(lambda: len(database.sizes) > sent + 2)

    assert not running.done()
    assert 0 not in database.sizes
    database.bears = 1000
    assert (True, True) == (await last, await end)


async def test_a_mistake_of_ours_costs_what_travelled_together_and_not_the_worker(
    journal: Journal,
    database: Database,
    slots: Slots,
    running: asyncio.Task[None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await asyncio.sleep(0)
    database.lets_claim, slots.mistake = False, KeyError("ours")
    slots.request = ClaimRequest(5, ["w"])

    assert await journal.write(step(A)), "it was durable before the mistake"
    await eventually(lambda: slots.got)

    assert [[]] == slots.got, "the slots of the claim are free again"
    assert "KeyError: 'ours'" in caplog.text
    await eventually(lambda: database.released)
    assert await journal.write(step(B))
    assert not running.done()


async def test_an_end_that_only_its_own_run_is_refused_is_given_back(
    journal: Journal, database: Database, running: object
) -> None:
    database.refuses, database.fault = is_bad, Fault.TABLE
    end = journal.write(done(A, "bad"))
    await eventually(lambda: len(database.sizes) > 20)
    assert not end.done()  # perhaps all ends are refused

    while not end.done():
        await journal.write(done(B))

    with pytest.raises(Refused) as refused:
        await end
    assert Fault.TABLE is refused.value.fault


async def test_what_is_too_much_for_one_statement_is_sent_in_parts(
    journal: Journal, database: Database, running: object
) -> None:
    """The same batch was sent forever."""
    database.bears = 2
    rows: list[Write] = [step(UUID(int=number)) for number in range(10)]

    assert [True] * 10 == await asyncio.gather(*(journal.write(row) for row in rows))
    assert rows == [row for statement in database.statements for row in statement]


async def test_after_a_statement_that_was_too_much_the_next_ones_are_smaller_and_grow_again(
    journal: Journal, database: Database, running: object
) -> None:
    async def write(count: int) -> None:
        database.sizes.clear()
        rows = (step(UUID(int=number)) for number in range(count))
        await asyncio.gather(*(journal.write(row) for row in rows))

    database.bears = 4
    await write(10)
    assert 10 == database.sizes[0]

    await write(2)
    assert [2] == database.sizes

    database.bears = 1000
    while max(database.sizes) < 10:
        await write(30)

    await write(30)
    assert [10, 10, 10] == database.sizes


async def test_a_statement_that_breaks_connections_is_sent_in_parts(
    journal: Journal, database: Database, running: object
) -> None:
    database.outages = 2
    writes = [journal.write(step(A)), journal.write(step(B))]

    assert [True, True] == await asyncio.gather(*writes)
    assert [1, 1] == [len(statement) for statement in database.statements]


async def test_a_claim_that_is_refused_costs_no_row_that_travels_with_it(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    """The row was taken for what was at fault, and its run failed."""
    database.lets_claim, slots.request = False, ClaimRequest(5, [])

    assert await journal.write(step(A))
    await eventually(lambda: slots.got)
    assert [[]] == slots.got


async def test_what_waits_when_the_flusher_stops_counts_as_lost(
    journal: Journal, database: Database, running: asyncio.Task[None]
) -> None:
    database.refuses, database.fault = is_bad, Fault.TABLE
    waits = journal.write(step(A, "bad"))
    await eventually(lambda: len(database.sizes) > 2)

    running.cancel()

    assert not await waits


async def test_a_value_that_the_database_can_read_waits_and_fails_no_run(
    journal: Journal, database: Database, running: object
) -> None:
    """A trigger, or a server without transaction ids, says what is said of a wrong value."""
    database.refuses, database.reads_all = is_bad, True
    bad, good = journal.write(step(A, "bad")), journal.write(step(B))
    assert await good
    await eventually(lambda: len(database.claims) > 5)
    assert not bad.done()
    database.refuses = lambda _: False

    assert await bad


async def test_a_claim_that_takes_too_long_is_made_smaller(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    database.lets_claim, database.refuses_claims_for = False, Fault.SIZE
    slots.request = ClaimRequest(5, [])
    journal.kick()

    await eventually(lambda: slots.refusals == 1)


async def test_claims_whose_answers_are_lost_again_and_again_are_made_smaller(
    journal: Journal, database: Database, slots: Slots, running: object
) -> None:
    """Their runs may be more than the connection carries in time."""
    for round in range(2):
        assert 0 == slots.refusals
        database.outages, slots.request = 1, ClaimRequest(5, [])
        journal.kick()
        await eventually(lambda: len(slots.got) > round)  # noqa: B023
        await eventually(lambda: len(database.released) > round)  # noqa: B023

    assert 1 == slots.refusals
