"""The queue of group commit: what travels together, what may not, and in which order it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.backend.records import (
    Completion,
    Continuation,
    ProgressWrite,
    RunEnd,
    StepSuccess,
    Wake,
    Write,
)
from openworkflow.core.ids import uuid7
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine import journal as journal_module
from openworkflow.engine.journal import Batch, DatabaseClock, Journal, Written

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.fixture
async def journal() -> Journal:
    return Journal(DatabaseClock(datetime.now(UTC)))


def step(run_id: UUID) -> StepSuccess:
    return StepSuccess(uuid7(), run_id, 1, "s", "1", 0.001, 1)


def done(run_id: UUID) -> Completion:
    return Completion(run_id, 1, None)


def park(run_id: UUID) -> RunEnd:
    columns = {"output": None, "error": None, "available_at": None, "delay": None}
    return RunEnd(
        run_id, 1, RunStatus.PENDING, attempts=None, progress=True, forever=True, **columns
    )


def again(run_id: UUID) -> Continuation:
    return Continuation(run_id, 1, None)


def tags(run_id: UUID) -> ProgressWrite:
    return ProgressWrite(run_id, 1, 0, 0, "{}", False, None, '{"a": "b"}', None)


def rows_of(batch: Batch) -> list[Write]:
    return [row for written in batch.entries for row in written.rows]


async def test_entries_leave_in_the_order_they_came_no_more_than_asked(journal: Journal) -> None:
    rows: list[Write] = [step(A), done(A), step(B)]
    for row in rows:
        journal.write(row)

    first, second, third = journal.take(2), journal.take(2), journal.take(2)

    assert (rows[:2], rows[2:], []) == (rows_of(first), rows_of(second), rows_of(third))
    assert {StepSuccess: rows[:1], Completion: rows[1:2]} == first.rows


async def test_a_row_that_is_appended_travels_in_the_same_batch_with_one_future(
    journal: Journal,
) -> None:
    written = journal.write(step(A))
    journal.write(step(B))

    assert journal.append(written, done(A))
    batch = journal.take(1)

    assert [StepSuccess, Completion] == [type(row) for row in written.rows]
    assert (2, [written]) == (len(batch), list(batch.entries))


async def test_entries_that_are_too_large_together_leave_one_after_the_other(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of more than a gigabyte was sent again every twelve seconds, forever."""
    monkeypatch.setattr(journal_module, "MOST_CHARACTERS", 10)
    large, small = Completion(A, 1, "x" * 11), Completion(B, 1, "x" * 5)
    failed = park(C)._replace(error="x" * 6)
    for row in (small, small, large, small, failed):
        journal.write(row)

    batches = [rows_of(journal.take(5)) for _ in range(5)]

    assert [[small, small], [large], [small], [failed], []] == batches


async def test_nothing_is_appended_to_an_entry_that_has_left(journal: Journal) -> None:
    written = journal.write(step(A))
    batch = journal.take(10)

    assert not journal.append(written, done(A))
    assert 1 == len(batch)


async def test_an_entry_holds_only_if_every_row_of_it_held(journal: Journal) -> None:
    both, other = journal.write(step(A)), journal.write(step(B))
    journal.append(both, done(A))
    batch = journal.take(10)

    batch.settle({A})

    assert (False, True) == (both.result(), other.result())


async def test_a_write_cannot_be_cancelled(journal: Journal) -> None:
    written = journal.write(step(A))

    assert not written.cancel()
    journal.abandon()
    assert written.result() is False


async def test_a_batch_that_wakes_parks_nothing(journal: Journal) -> None:
    """One statement cannot write a row twice: the run that was parked would stay `running`."""
    rows: list[Write] = [step(B), Wake(A), park(B), done(C)]
    for row in rows:
        journal.write(row)

    first, second = journal.take(10), journal.take(10)

    assert ([rows[0], rows[1], rows[3]], [rows[2]]) == (rows_of(first), rows_of(second))


async def test_a_batch_that_parks_wakes_nothing(journal: Journal) -> None:
    rows: list[Write] = [park(B), Wake(A)]
    for row in rows:
        journal.write(row)

    assert rows[:1] == rows_of(journal.take(10))
    assert rows[1:] == rows_of(journal.take(10))


async def test_a_batch_ends_no_run_that_it_wakes(journal: Journal) -> None:
    for row in (done(A), Wake(A), Wake(B)):
        journal.write(row)

    assert [done(A), Wake(B)] == rows_of(journal.take(10))
    assert [Wake(A)] == rows_of(journal.take(10))


async def test_a_batch_tags_no_run_that_it_wakes(journal: Journal) -> None:
    """Both write the run's row, and one of them would be lost."""
    untagged = tags(B)._replace(tags=None)
    for row in (Wake(A), tags(A), Wake(B), untagged, tags(C)):
        journal.write(row)

    assert [Wake(A), Wake(B), untagged, tags(C)] == rows_of(journal.take(10))
    assert [tags(A)] == rows_of(journal.take(10))


async def test_a_run_may_end_and_wake_another_in_one_entry(journal: Journal) -> None:
    written = journal.write(done(A))

    assert journal.append(written, Wake(B))
    assert [done(A), Wake(B)] == rows_of(journal.take(10))


async def test_an_entry_refuses_a_row_that_may_not_be_in_its_statement(journal: Journal) -> None:
    """Whoever writes waits for the entry then, and sends the row after it."""
    last_step, waking = journal.write(step(A)), journal.write(Wake(B))

    assert not journal.append(last_step, again(A))
    assert not journal.append(waking, park(A))
    assert not journal.append(waking, done(B))
    assert journal.append(last_step, done(A))


async def test_a_run_that_continues_as_new_travels_without_rows_of_its_steps(
    journal: Journal,
) -> None:
    """The statement that deletes its steps does not see those that it inserts itself."""
    late, other = step(A), step(B)
    for row in (again(A), late, other):
        journal.write(row)

    assert [again(A), other] == rows_of(journal.take(10))
    assert [late] == rows_of(journal.take(10))


async def test_what_is_deferred_leaves_next_whatever_else_keeps_coming(journal: Journal) -> None:
    journal.write(Wake(A))
    deferred = journal.write(park(B))
    journal.take(10)
    for _ in range(10):
        journal.write(Wake(C))

    assert [deferred] == list(journal.take(10).entries)


async def test_what_is_deferred_may_still_be_appended_to(journal: Journal) -> None:
    journal.write(Wake(A))
    deferred = journal.write(park(B))
    journal.take(10)

    assert journal.append(deferred, step(B))


ROWS = st.sampled_from([make(run) for run in (A, B, C) for make in (step, done, park, again, Wake)])


@given(
    entries=st.lists(st.lists(ROWS, min_size=1, max_size=2), max_size=12), limit=st.integers(1, 5)
)
async def test_every_entry_leaves_once_and_no_batch_writes_a_row_twice(
    entries: Sequence[Sequence[Write]], limit: int
) -> None:
    journal = Journal(DatabaseClock(datetime.now(UTC)))
    sent: list[Written] = []
    for rows in entries:
        written = journal.write(rows[0])
        sent += [
            written,
            *(journal.write(row) for row in rows[1:] if not journal.append(written, row)),
        ]

    left: list[Written] = []
    while (batch := journal.take(limit)).entries:
        left += batch.entries
        rows_ = rows_of(batch)
        woken = {row.run_id for row in rows_ if isinstance(row, Wake)}
        parked = [row for row in rows_ if row == park(row.run_id) or isinstance(row, Continuation)]
        ended = {row.run_id for row in rows_ if isinstance(row, Completion)}
        assert not (woken and parked)
        assert woken.isdisjoint(ended)
        afresh = {row.run_id for row in rows_ if isinstance(row, Continuation)}
        assert afresh.isdisjoint(row.run_id for row in rows_ if isinstance(row, StepSuccess))

    assert sorted(map(id, sent)) == sorted(map(id, left))
