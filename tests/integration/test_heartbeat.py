"""Leases outlive blocked event loops, lost connections and a database that hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from openworkflow import BackendPostgres
from openworkflow.backend.backend import HeartbeatSession, NewRun
from openworkflow.backend.records import Flush
from openworkflow.core.errors import BackendError
from openworkflow.engine.guard import LeaseGuard
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker import heartbeat as heartbeat_module
from openworkflow.worker.heartbeat import Heartbeat
from tests.flushes import claim, wanted
from tests.helpers import NEVER, eventually, eventually_sync
from tests.refusing import refusing

Claim = tuple[UUID, int]
Start = Callable[..., Heartbeat]

WORKER = "here/1"
LEASE = timedelta(seconds=1.5)
LONG = timedelta(hours=1)
"""With such a lease no beat comes by itself, but for the first."""


@pytest.fixture
async def claims(backend: BackendPostgres) -> list[Claim]:
    """Two runs that the worker holds."""
    await backend.create_workflow_runs([NewRun("bill"), NewRun("bill")])
    session = await backend.open_session(connections=1)
    flushed = await session.flush(Flush(WORKER, LEASE, claim=wanted(10, "bill")))
    await session.close()
    return [(run.id, run.claim_no) for run in flushed.claimed]


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("default")


@pytest.fixture
def lost() -> list[Claim]:
    return []


@pytest.fixture
def guard() -> LeaseGuard:
    return LeaseGuard(LEASE.total_seconds())


@pytest.fixture
def start(
    backend: BackendPostgres,
    claims: list[Claim],
    lost: list[Claim],
    guard: LeaseGuard,
    metrics: Metrics,
) -> Iterator[Start]:
    """Starts a heartbeat of `claims`; it is stopped at the end of the test."""
    started: list[Heartbeat] = []

    def begin(
        held: Callable[[], list[Claim]] = lambda: list(claims),
        on_lost: Callable[[set[Claim]], None] = lost.extend,
        lease: timedelta = LEASE,
    ) -> Heartbeat:
        heartbeat = Heartbeat(
            backend, WORKER, lease, guard, held=held, on_lost=on_lost, metrics=metrics
        )
        heartbeat.start()
        started.append(heartbeat)
        return heartbeat

    yield begin
    for heartbeat in started:
        heartbeat.stop()


async def leased(observer: asyncpg.Connection) -> int:
    """How many runs nobody else may claim now."""
    count: int = await observer.fetchval(
        "SELECT count(*) FROM workflow_runs WHERE status = 'running' AND available_at > now()"
    )
    return count


async def expire(observer: asyncpg.Connection) -> None:
    await observer.execute("UPDATE workflow_runs SET available_at = now() - interval '1 second'")


def errors(metrics: Metrics) -> float:
    return _sample(metrics, "openworkflow_database_errors_total", kind="heartbeat")


def last_beat(metrics: Metrics) -> float:
    return _sample(metrics, "openworkflow_heartbeat_last_timestamp_seconds")


def _sample(metrics: Metrics, name: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(name, {"namespace_id": "default", **labels})
    assert value is not None
    return value


async def test_leases_are_kept_while_the_event_loop_is_blocked(
    start: Start, claims: list[Claim], observer: asyncpg.Connection
) -> None:
    """The very reason for a thread of its own."""
    until = "select {}(available_at) from workflow_runs"
    before = await observer.fetchval(until.format("max"))
    beats: list[int] = []

    def held() -> list[Claim]:
        beats.append(len(beats))
        return list(claims)

    start(held)
    eventually_sync(lambda: len(beats) > 3)  # which blocks it, as user code does

    assert before < await observer.fetchval(until.format("min"))


async def test_the_first_beat_comes_at_once(start: Start, observer: asyncpg.Connection) -> None:
    await expire(observer)

    start(lease=LONG)

    await eventually(lambda: _two_leased(observer))


async def test_a_claim_that_is_gone_is_reported_in_the_event_loop_of_the_worker(
    start: Start, backend: BackendPostgres, claims: list[Claim], observer: asyncpg.Connection
) -> None:
    reports: list[tuple[set[Claim], int]] = []
    start(on_lost=lambda claims: reports.append((claims, threading.get_ident())))

    await backend.cancel_workflow_run(claims[0][0])

    await eventually(lambda: reports)
    assert ({claims[0]}, threading.get_ident()) == reports[0]
    assert 1 == await leased(observer)


async def test_a_claim_that_is_gone_is_known_while_the_event_loop_is_blocked(
    start: Start,
    guard: LeaseGuard,
    backend: BackendPostgres,
    claims: list[Claim],
    lost: list[Claim],
) -> None:
    """A canceled run began a step 3 s later, the first thing after what had held up the loop."""
    start()
    await backend.cancel_workflow_run(claims[0][0])

    give_up = time.monotonic() + 20
    while not guard.lost and time.monotonic() < give_up:
        time.sleep(0.01)  # noqa: ASYNC251 - what user code does to us

    assert {claims[0]} == guard.lost
    assert [] == lost


async def test_a_later_claim_of_the_same_worker_is_not_the_same_claim(
    start: Start, lost: list[Claim], claims: list[Claim], observer: asyncpg.Connection
) -> None:
    await observer.execute("UPDATE workflow_runs SET claim_no = 2 WHERE id = $1", claims[0][0])

    start()

    await eventually(lambda: lost)
    assert {claims[0]} == set(lost)


async def test_leases_are_kept_over_a_lost_connection(
    start: Start, observer: asyncpg.Connection, lost: list[Claim], metrics: Metrics
) -> None:
    start()
    await eventually(lambda: last_beat(metrics) > 0)

    await observer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await expire(observer)

    await eventually(lambda: _two_leased(observer))
    assert [] == lost


async def test_a_database_that_hangs_costs_a_beat_and_not_the_heartbeat(
    start: Start, observer: asyncpg.Connection, lost: list[Claim], metrics: Metrics
) -> None:
    start()

    async with observer.transaction():
        await observer.execute("LOCK TABLE workflow_runs IN ACCESS EXCLUSIVE MODE")
        await eventually(lambda: errors(metrics) >= 2)
    await expire(observer)

    await eventually(lambda: _two_leased(observer))
    assert [] == lost


async def test_a_defect_in_a_beat_does_not_end_the_heartbeat(
    start: Start,
    claims: list[Claim],
    observer: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [RuntimeError("a defect")]

    def held() -> list[Claim]:
        if answers:
            raise answers.pop()
        return list(claims)

    await expire(observer)
    start(held)

    await eventually(lambda: _two_leased(observer))
    assert "a defect" in caplog.text


async def test_a_worker_without_runs_beats_too(start: Start, metrics: Metrics) -> None:
    """Its beat says that the database can be reached, which is what readiness asks."""
    start(list)

    await eventually(lambda: last_beat(metrics) > 0)


async def test_the_age_grows_while_no_beat_arrives(
    start: Start, guard: LeaseGuard, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    async def refuse(*_: object) -> set[Claim]:
        raise ConnectionError

    monkeypatch.setattr(HeartbeatSession, "beat", refuse)
    start()

    await eventually(lambda: errors(metrics) >= 2)
    assert guard.age > 0.1


async def test_stop_is_prompt_even_while_the_database_hangs(
    start: Start, observer: asyncpg.Connection, metrics: Metrics
) -> None:
    async with observer.transaction():
        await observer.execute("LOCK TABLE workflow_runs IN ACCESS EXCLUSIVE MODE")
        heartbeat = start()
        await eventually(lambda: errors(metrics) >= 1)

        began = time.monotonic()
        await asyncio.to_thread(heartbeat.stop)

    assert time.monotonic() - began < 4
    assert [] == [t for t in threading.enumerate() if t.name.startswith("openworkflow heartbeat")]


async def test_stop_disconnects_and_may_be_called_twice(
    start: Start, observer: asyncpg.Connection, metrics: Metrics
) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    before = await observer.fetchval(others)
    heartbeat = start()
    await eventually(lambda: last_beat(metrics) > 0)

    heartbeat.stop()
    heartbeat.stop()

    async def gone() -> bool:
        return bool(await observer.fetchval(others) <= before)

    await eventually(gone)


async def test_a_heartbeat_that_was_never_started_can_be_stopped(
    backend: BackendPostgres, guard: LeaseGuard, metrics: Metrics
) -> None:
    Heartbeat(backend, WORKER, LEASE, guard, held=list, on_lost=print, metrics=metrics).stop()


async def test_a_heartbeat_that_is_asked_for_comes_at_once(
    start: Start, observer: asyncpg.Connection, metrics: Metrics
) -> None:
    heartbeat = start(lease=LONG)
    await eventually(lambda: last_beat(metrics) > 0)
    await expire(observer)

    heartbeat.hurry()

    await eventually(lambda: _two_leased(observer))


async def test_a_flood_of_messages_costs_few_heartbeats_and_what_is_canceled_is_still_seen(
    start: Start,
    backend: BackendPostgres,
    claims: list[Claim],
    lost: list[Claim],
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any role of the database may send them, and each heartbeat writes every lease."""
    beats: list[float] = []

    def held() -> list[Claim]:
        beats.append(time.monotonic())
        return list(claims)

    heartbeat = start(held)
    await eventually(lambda: last_beat(metrics) > 0)
    began = time.monotonic()
    took, canceled = 0.0, False
    while took < 1.5 or not (lost or took > NEVER):
        heartbeat.hurry()
        await asyncio.sleep(0.001)
        took = time.monotonic() - began
        if len(beats) >= 4 and not canceled:
            canceled = True
            await backend.cancel_workflow_run(claims[0][0])

    assert len(beats) <= 8 * took
    assert [claims[0]] == lost[:1]


async def test_each_heartbeat_renews_the_guard_even_while_the_event_loop_is_blocked(
    start: Start, guard: LeaseGuard
) -> None:
    start()

    time.sleep(2 * LEASE.total_seconds())  # noqa: ASYNC251 - what user code does to us

    assert guard.stands


async def test_a_guard_that_fell_stands_again_once_the_lost_claims_were_stopped(
    start: Start, backend: BackendPostgres, claims: list[Claim], guard: LeaseGuard
) -> None:
    stood: list[bool] = []
    guard.renew(guard.now())
    guard._last -= 100  # an outage that the test need not wait for
    guard.until -= 100
    await backend.cancel_workflow_run(claims[0][0])
    goes_on = asyncio.ensure_future(guard.renewed())

    start(on_lost=lambda _: stood.append(guard.stands or goes_on.done()))

    await asyncio.wait_for(goes_on, 25)
    assert [False] == stood[:1]
    assert not guard.may_recover


async def test_opening_a_connection_has_a_deadline(
    start: Start, backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    """A server that accepts and says nothing must not silence the heartbeat for good."""
    opening = backend.open_heartbeat
    hanging = [asyncio.sleep(600), asyncio.sleep(600)]

    async def open_heartbeat() -> HeartbeatSession:
        if hanging:
            await hanging.pop()
        return await opening()

    monkeypatch.setattr(backend, "open_heartbeat", open_heartbeat)
    monkeypatch.setattr(heartbeat_module, "OPEN_SECONDS", 0.01)
    start()

    await eventually(lambda: last_beat(metrics) > 0)
    assert 2 == errors(metrics)


async def test_stop_does_not_wait_for_ever_for_a_thread_that_is_stuck(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "STOP_SECONDS", 0.05)
    stuck, end = threading.Event(), threading.Event()

    def held() -> list[Claim]:
        stuck.set()
        end.wait(60)
        return []

    heartbeat = start(held)
    await eventually(stuck.is_set)

    await asyncio.wait_for(asyncio.to_thread(heartbeat.stop), 25)

    end.set()
    monkeypatch.setattr(heartbeat_module, "STOP_SECONDS", 5.0)


async def _two_leased(observer: asyncpg.Connection) -> bool:
    return 2 == await leased(observer)


async def test_a_lease_that_cannot_be_extended_costs_no_other_run_its_lease(
    backend: BackendPostgres, claims: list[Claim], observer: asyncpg.Connection
) -> None:
    """One row with a constraint against it took the worker's word for all its claims."""
    session = await backend.open_heartbeat()
    odd, even = claims
    await expire(observer)
    async with refusing(observer, "workflow_runs", "23514", f"new.id = '{odd[0]}'"):
        assert {odd, even} == await session.beat(WORKER, LEASE, claims)
        assert 1 == await leased(observer)
    async with refusing(observer, "workflow_runs", "42501"):
        with pytest.raises(BackendError, match="refused by a test"):
            await session.beat(WORKER, LEASE, claims)
    await session.close()


async def test_the_refused_lease_of_the_only_run_does_not_stop_the_heartbeat(
    backend: BackendPostgres, claims: list[Claim], observer: asyncpg.Connection
) -> None:
    """A worker with one run claimed nothing more, because a trigger refused that one."""
    session = await backend.open_heartbeat()
    async with refusing(observer, "workflow_runs", "P0001", f"new.id = '{claims[0][0]}'"):
        assert set(claims[:1]) == await session.beat(WORKER, LEASE, claims[:1])
    await session.close()


@pytest.mark.parametrize("cut_off", [True, False])
async def test_a_claim_that_was_lost_in_an_outage_is_no_crash(
    backend: BackendPostgres,
    claims: list[Claim],
    lost: list[Claim],
    start: Start,
    observer: asyncpg.Connection,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    cut_off: bool,
) -> None:
    """Five outages would have convicted a run. One that froze its worker may be what did it."""
    gate = asyncio.Event()
    loop, beat = asyncio.get_running_loop(), HeartbeatSession.beat

    async def held_back(session: HeartbeatSession, *arguments: Any) -> set[Claim]:
        if not gate.is_set():
            if cut_off:
                raise ConnectionError("no way to the database")
            waiting = asyncio.run_coroutine_threadsafe(gate.wait(), loop)
            await asyncio.wrap_future(waiting)
        return await beat(session, *arguments)

    monkeypatch.setattr(HeartbeatSession, "beat", held_back)
    monkeypatch.setattr(heartbeat_module, "BEATS_PER_LEASE", 0.1)
    start()
    if cut_off:
        await eventually(lambda: errors(metrics) >= 1)
    await expire(observer)
    session = await backend.open_session(connections=1)
    taken = await claim(session, "bill", limit=2, worker="there/1")
    assert [1, 1] == [run.crashes for run in taken]
    gate.set()

    await eventually(lambda: set(claims) <= set(lost))
    counts = "SELECT sum(crashes) FROM workflow_runs"
    assert (0 if cut_off else 2) == await observer.fetchval(counts)
    await session.close()
