"""Signals as they are sent: stored once, waking whom they are for, refused where they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import OpenWorkflow, RunHandle
from openworkflow.backend.backend import BackendPostgres, NewRun, WorkerSession
from openworkflow.backend.records import ClaimedRun, Waiting
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    InvalidRunState,
    RunNotFound,
    SerializationError,
)
from openworkflow.core.workflow_run import RunStatus
from tests.flushes import claim, claim_one, completion_of, end_of, flush, session_of


@pytest.fixture
async def session(backend: BackendPostgres) -> AsyncIterator[WorkerSession]:
    session = await session_of(backend)
    yield session
    await session.close()


@pytest.fixture
async def run(backend: BackendPostgres, session: WorkerSession) -> ClaimedRun:
    """A run that waits for these, and for no time."""
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    await session.subscribe([(run.id, "n"), (run.id, "approval")])
    await park(session, run)
    return run


async def park(session: WorkerSession, run: ClaimedRun) -> None:
    waits = end_of(run, RunStatus.PENDING, forever=True, wake_no=run.wake_no)
    await flush(session, ends=[waits])


async def inbox(
    session: WorkerSession, run_id: UUID, *names: str, had: list[UUID] | None = None
) -> list[str | None]:
    found = await session.read_inboxes([Waiting(run_id, names, had or [], had or [])])
    return [message.payload for message in found[run_id].messages]


@dataclass
class Approval:
    by: str
    amount: int


async def test_a_signal_is_stored_and_makes_a_run_that_waits_due(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun
) -> None:
    assert [] == await claim(session, "a")

    await ow.handle(run.id).signal("approval", Approval("ann", 7))

    assert 1 == (await claim_one(session, "a")).wake_no
    assert ['{"by": "ann", "amount": 7}'] == await inbox(session, run.id, "approval")
    assert [] == await inbox(session, run.id, "another")


async def test_signals_of_a_name_come_in_the_order_in_which_they_were_sent(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun
) -> None:
    for value in range(20):
        await ow.signal(run.id, "n" if value % 2 else "m", value)

    assert [str(value) for value in range(1, 20, 2)] == await inbox(session, run.id, "n")
    assert [str(value) for value in range(20)] == await inbox(session, run.id, "n", "m")


async def test_a_key_sends_a_signal_once_and_is_of_its_run_and_name(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun
) -> None:
    first = await ow.signal(run.id, "n", 1, idempotency_key="k")

    assert first == await ow.signal(run.id, "n", 2, idempotency_key="k")
    assert first != await ow.signal(run.id, "m", 3, idempotency_key="k")
    assert {first} != set(
        await asyncio.gather(*(ow.signal("t", 4, idempotency_key="k") for _ in range(5)))
    )
    assert ["1"] == await inbox(session, run.id, "n")
    assert ["4"] == await inbox(session, run.id, "t")


async def test_a_run_that_has_ended_or_is_none_cannot_be_signaled(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun, database_url: str
) -> None:
    sent = await ow.signal(run.id, "n", 1, idempotency_key="k")
    elsewhere = await BackendPostgres.connect(database_url, namespace_id="elsewhere")
    for client, run_id in ((ow, UUID(int=7)), (OpenWorkflow(elsewhere), run.id)):
        with pytest.raises(RunNotFound):
            await client.signal(run_id, "n", 2)
    await flush(session, completions=[completion_of(await claim_one(session, "a"))])

    with pytest.raises(InvalidRunState, match="is succeeded and cannot be signaled"):
        await ow.signal(run.id, "n", 2)

    assert sent == await ow.signal(run.id, "n", 1, idempotency_key="k"), "it was sent before"
    await elsewhere.stop()


async def test_a_signal_in_the_callers_transaction_is_sent_if_that_commits(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    for committed in (False, True):
        transaction = sql.transaction()
        await transaction.start()
        await ow.signal(run.id, "n", committed, connection=sql)
        with pytest.raises(RunNotFound):
            await ow.signal(UUID(int=7), "n", connection=sql)
        assert [] == await claim(session, "a")
        await (transaction.commit() if committed else transaction.rollback())

    assert run.id == (await claim_one(session, "a")).id
    assert ["true"] == await inbox(session, run.id, "n")


async def test_an_open_transaction_that_sent_a_signal_is_in_no_workers_way(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession, sql: asyncpg.Connection[Any]
) -> None:
    (created,) = await backend.create_workflow_runs([NewRun("a")])
    async with sql.transaction():
        await ow.signal(created.id, "n", connection=sql)

        run = await claim_one(session, "a")
        await asyncio.wait_for(flush(session, completions=[completion_of(run)]), 25)

    assert RunStatus.SUCCEEDED is (await ow.get_workflow_run(run.id)).status


async def test_a_message_wakes_a_run_that_is_about_to_wait(
    ow: OpenWorkflow, backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    woken: list[UUID] = []
    async with backend.listen() as listener:
        listener.on_woken(woken.append)
        await ow.signal(run.id, "n")
        while not woken:
            await asyncio.sleep(0.01)

    await park(session, run)

    assert [run.id] == woken
    assert run.id == (await claim_one(session, "a")).id


async def test_a_run_that_waits_for_something_else_is_left_alone(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun
) -> None:
    """It would be replayed for every signal that it is not yet interested in."""
    await ow.signal(run.id, "m", 1)
    assert [] == await claim(session, "a")

    await ow.signal(run.id, "n", 2)
    again = await claim_one(session, "a")
    await park(session, again)
    await ow.signal(run.id, "n", 3)

    assert [] == await claim(session, "a"), "it has not said again that it waits"
    assert ["1", "2", "3"] == await inbox(session, run.id, "n", "m")


@pytest.mark.parametrize("fired", [False, True], ids=["before its commit", "and has looked"])
async def test_a_sender_that_began_before_a_wait_and_commits_after_it_wakes_it(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    session: WorkerSession,
    sql: asyncpg.Connection[Any],
    fired: bool,
) -> None:
    await backend.create_workflow_runs([NewRun("a")])
    run = await claim_one(session, "a")
    transaction = sql.transaction()
    await transaction.start()
    await ow.signal(run.id, "n", 1, connection=sql)
    if fired:
        await sql.execute("set constraints all immediate")

    assert not await session.subscribe([(run.id, "n")])
    assert [] == await inbox(session, run.id, "n")
    parking = asyncio.ensure_future(park(session, run))
    if fired:
        waiting = (
            "select count(*) from pg_stat_activity "
            "where wait_event_type = 'Lock' and datname = current_database()"
        )
        while not await sql.fetchval(waiting):
            await sql.execute("select pg_stat_clear_snapshot(), pg_sleep(0.01)")
    else:
        await parking
    await transaction.commit()
    await parking

    assert run.id == (await claim_one(session, "a")).id


async def test_a_topic_reaches_those_who_wait_and_those_who_come_later_until_it_expires(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    assert not await session.subscribe([(run.id, "t")])
    await ow.signal("other", 0)
    assert [] == await claim(session, "a")

    sent = await ow.signal("t", 1)

    assert 1 == (await claim_one(session, "a")).wake_no
    assert ["1"] == await inbox(session, run.id, "t")
    assert [] == await inbox(session, run.id, "t", had=[sent])
    await sql.execute("update workflow_messages set expires_at = now() - interval '1 s'")
    assert [] == await inbox(session, run.id, "t")
    await ow.signal("t", 2, keep_for="1h")
    assert 1 == await sql.fetchval("select count(*) from workflow_messages"), "the others went"


async def test_one_who_begins_to_wait_while_a_topic_is_sent_to_is_told_to_look_again(
    ow: OpenWorkflow, session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    """The sender has looked who waits, and has not committed: neither would know of the other."""
    async with sql.transaction():
        await ow.signal("t", 1, connection=sql)
        await sql.execute("set constraints all immediate")

        assert {"t"} == await session.subscribe([(run.id, "t"), (run.id, "u")])
        assert [] == await inbox(session, run.id, "t")

    assert not await session.subscribe([(run.id, "t")])
    assert ["1"] == await inbox(session, run.id, "t")


async def test_a_topic_is_refused_where_the_sender_cannot_see_who_waits(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="repeatable read"):
        async with sql.transaction(isolation="repeatable_read"):
            await ow.signal("t", 1, connection=sql)


async def test_a_lock_that_somebody_holds_is_not_taken_for_the_end_of_the_run(
    ow: OpenWorkflow, run: ClaimedRun, sql: asyncpg.Connection[Any], database_url: str
) -> None:
    """The driver's class for what a signal to an ended run raises is that of a lock_timeout too."""
    other = await asyncpg.connect(database_url, server_settings={"lock_timeout": "50"})
    try:
        async with sql.transaction(), other.transaction():
            await sql.execute("select from workflow_runs where id = $1 for update", run.id)
            await other.execute("set constraints all immediate")
            with pytest.raises(BackendError, match="lock timeout"):
                await ow.signal(run.id, "n", 1, connection=other)
    finally:
        await other.close()


@pytest.mark.parametrize("code", ["no_data_found", "object_not_in_prerequisite_state"])
async def test_what_a_trigger_raises_is_not_taken_for_news_of_the_run(
    ow: OpenWorkflow, run: ClaimedRun, sql: asyncpg.Connection[Any], code: str
) -> None:
    await sql.execute(
        "create function refuse() returns trigger language plpgsql as"
        f" $$ begin raise exception 'by a trigger' using errcode = '{code}'; end $$;"
        " create trigger refuse before insert on workflow_messages"
        " for each row execute function refuse()"
    )

    with pytest.raises(BackendError, match="by a trigger"):
        await ow.signal(run.id, "n", 1)


async def test_sql_alone_sends_signals(
    session: WorkerSession, run: ClaimedRun, sql: asyncpg.Connection[Any]
) -> None:
    await sql.execute("select openworkflow_signal($1, 'n', '{\"a\": 1}')", run.id)
    await sql.execute("select openworkflow_signal_topic('n', '2', keep_for => '1 minute')")
    with pytest.raises(asyncpg.NoDataFoundError, match="there is no workflow run"):
        await sql.execute("select openworkflow_signal($1, 'n')", UUID(int=7))

    assert run.id == (await claim_one(session, "a")).id
    assert ['{"a": 1}', "2"] == await inbox(session, run.id, "n")


async def test_what_was_sent_to_a_run_goes_with_it(
    ow: OpenWorkflow,
    backend: BackendPostgres,
    session: WorkerSession,
    run: ClaimedRun,
    sql: asyncpg.Connection[Any],
) -> None:
    await ow.signal(run.id, "n")
    await session.subscribe([(run.id, "t")])
    await flush(session, completions=[completion_of(await claim_one(session, "a"))])
    left = "select count(*) from workflow_messages, workflow_subscriptions"
    assert 3 == await sql.fetchval(left)

    assert [1] == [n async for n in backend.prune([RunStatus.SUCCEEDED], timedelta(0))]

    assert 0 == await sql.fetchval(left)


@pytest.mark.parametrize(
    ("to", "message", "options", "error"),
    [
        (UUID(int=1), (), {}, "takes signal"),
        (UUID(int=1), ("",), {}, "a signal's name must be text"),
        (UUID(int=1), ("n", 1, 2), {}, "takes signal"),
        (UUID(int=1), ("n",), {"keep_for": "1h"}, "keep_for is for signals to a topic"),
        ("0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a", ("n",), {}, "for the run of that id pass UUID"),
        ("0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a", ("n", 1), {}, "for the run of that id pass UUID"),
        ("t", (object(),), {}, "signal 't'"),
        (7, (), {}, "goes to a run"),
        ("t", (), {"idempotency_key": ""}, "idempotency_key must be text"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_it_is(
    ow: OpenWorkflow, to: Any, message: tuple[Any, ...], options: Any, error: str
) -> None:
    with pytest.raises((ConfigurationError, SerializationError), match=error):
        await ow.signal(to, *message, **options)


async def test_an_option_that_there_is_not_is_refused(ow: OpenWorkflow) -> None:
    handle: RunHandle[Any] = ow.handle(UUID(int=1))
    with pytest.raises(TypeError, match="no option 'key'"):
        await handle.signal("n", 1, key="k")  # type: ignore[call-arg]
