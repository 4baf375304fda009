"""What the operator's probes say: whether it works, not only whether it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry, Counter

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.process import STALLED_SECONDS, Operator
from openworkflow_operator.report import health
from openworkflow_operator.settings import Settings
from tests.helpers import eventually

LONG_AGO = STALLED_SECONDS + 1
KEY = Key("shop", "orders")


async def get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, (await answer.text()).strip()


async def test_the_port_tells_what_is_wrong_and_what_is_counted() -> None:
    registry, wrong = CollectorRegistry(), {"live": "", "ready": "not listed"}
    Counter("visits", "Visits.", registry=registry).inc(3)
    live, ready = (lambda: wrong["live"] or None), (lambda: wrong["ready"] or None)

    async with health.served(0, registry, live, ready) as port:
        assert (200, "ok") == await get(port, "/livez")
        assert (503, "not listed") == await get(port, "/readyz")
        wrong |= {"live": "stalled", "ready": ""}
        assert (503, "stalled") == await get(port, "/livez")
        assert (200, "ok") == await get(port, "/readyz")
        status, text = await get(port, "/metrics")
        assert (200, True) == (status, "visits_total 3.0" in text)
        assert 404 == (await get(port, "/"))[0]


async def test_a_crowd_of_silent_clients_takes_few_files_and_a_probe_is_answered() -> None:
    async with health.served(0, CollectorRegistry(), lambda: None, lambda: None) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(400)]

        assert (200, "ok") == await get(port, "/livez")
        await eventually(lambda: sum(not r.at_eof() for r, _ in silent) <= health.MOST_CLIENTS, 9)
        assert not any(reader.at_eof() for reader, _ in silent[-10:])
        for _, writer in silent:
            writer.close()


async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    async with health.served(0, CollectorRegistry(), lambda: None, lambda: None) as port:
        with pytest.raises(OSError, match="in use"):
            async with health.served(port, CollectorRegistry(), lambda: None, lambda: None):
                pass


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    """An operator that was never run, with one resource in its store."""
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as client:
        operator = Operator(client, Settings(port=0))
        metadata = {"namespace": "shop", "name": "orders", "uid": "u", "resourceVersion": "1"}
        operator.store.put(kinds.WORKFLOW_NAMESPACE, {"metadata": metadata})
        yield operator


async def test_an_operator_that_visits_lives(operator: Operator) -> None:
    operator._leadership.is_leader = True
    key = await operator.queue.take()
    assert operator.not_live() is None
    operator.queue.done(key)
    assert operator.not_live() is None
    assert "the cluster was not listed yet" == operator.not_ready()


async def test_an_operator_without_a_full_visit_is_dead(operator: Operator) -> None:
    operator._resynced_at -= LONG_AGO
    assert "the API server has given no list for 301 s" == operator.not_live()


async def test_a_visit_that_never_ends_is_death(operator: Operator) -> None:
    operator._leadership.is_leader = True
    operator.queue._active[await operator.queue.take()] -= LONG_AGO
    assert "a visit has gone on for 301 s" == operator.not_live()


async def test_a_leader_that_visits_nothing_is_dead_and_a_standby_is_not(
    operator: Operator,
) -> None:
    operator._led_at -= LONG_AGO
    operator.queue.last_done -= LONG_AGO
    assert operator.not_live() is None
    operator._leadership.is_leader = True
    assert "no visit has ended for 301 s" == operator.not_live()
    operator.queue.add(KEY)
    await asyncio.wait_for(operator.queue.take(), 25)
    operator.queue.done(KEY)
    assert operator.not_live() is None


async def test_one_who_has_just_taken_over_is_given_time(operator: Operator) -> None:
    operator.queue.last_done -= LONG_AGO
    operator._led_at = time.monotonic()
    operator._leadership.is_leader = True
    assert operator.not_live() is None


async def test_rare_full_visits_are_no_death(operator: Operator) -> None:
    operator.settings = Settings(port=0, resync_seconds=3600)
    operator._resynced_at -= 2 * 3600
    assert operator.not_live() is None
    operator._resynced_at -= 3600
    assert operator.not_live() is not None
