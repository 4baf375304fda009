"""What an API server may do to the operator: errors, conflicts, cut and expired watches.

A mock answers here: it is good for faults, and proves nothing about Kubernetes. What does is in
`tests/operator_api`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kmock import RawHandler, Response  # type: ignore[attr-defined]
from kubernetes.aio.client import ApiClient, Configuration

from openworkflow_operator import work
from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.informer import Informer
from openworkflow_operator.cluster.leadership import Leadership, LeadershipLost
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.decide.pods import Pod, Trouble
from openworkflow_operator.work import WorkQueue
from tests.helpers import eventually

LIST = "/apis/apps/v1/namespaces/shop/deployments"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases"


@pytest.fixture
async def cluster(kmock: RawHandler) -> AsyncIterator[Cluster]:
    async with ApiClient(Configuration(host=str(kmock.url).rstrip("/"))) as client:
        yield Cluster(client)


def refusal(code: int, reason: str, message: str = "") -> Response:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return Response(status=code, payload=status)


def ok(payload: dict[str, Any]) -> Response:
    """Where answers differ, each needs its status: the mock keeps that of the one before."""
    return Response(status=200, payload=payload)


def deployment(name: str, version: int, owner: str = "orders") -> dict[str, Any]:
    labels = {"openworkflow.dev/workflow-namespace": owner}
    metadata = {"name": name, "namespace": "shop", "uid": name, "labels": labels}
    return {"metadata": metadata | {"resourceVersion": str(version)}, "spec": {}}


def listed(*items: dict[str, Any], version: int = 10, more: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return {"items": list(items), "metadata": metadata}


async def test_what_is_not_there_is_none_and_every_other_refusal_an_error(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LIST}/gone"] << refusal(404, "NotFound")
    kmock[f"get {LIST}/forbidden"] << refusal(403, "Forbidden", "no")
    kmock[f"get {LIST}/broken"] << Response(status=502, payload=b"<html>bad gateway</html>")

    assert await cluster.get(kinds.DEPLOYMENT, "shop", "gone") is None
    kmock[f"get {LIST}/odd"] << Response(status=500, payload="no object")
    for name, status in (("forbidden", 403), ("broken", 502), ("odd", 500)):
        with pytest.raises(ClusterError) as refused:
            await cluster.get(kinds.DEPLOYMENT, "shop", name)
        assert status == refused.value.status


async def test_an_api_server_that_is_away_is_an_error_of_the_same_kind(unused_port: int) -> None:
    configuration = Configuration(host=f"http://127.0.0.1:{unused_port}")
    async with ApiClient(configuration) as client:
        with pytest.raises(ClusterError) as refused:
            await Cluster(client).get(kinds.DEPLOYMENT, "shop", "any")

    assert 0 == refused.value.status


async def test_an_expired_watch_leads_to_a_new_list_which_notices_what_is_gone(
    kmock: RawHandler, cluster: Cluster
) -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "old"}}
    lists = iter([listed(deployment("a", 1), deployment("b", 2)), listed(deployment("b", 2))])
    latest: list[Any] = []

    def answer(request: Any) -> Any:
        if request.params.get("watch"):
            return Response(payload=json.dumps(expired).encode() + b"\n")
        latest.append(next(lists, None) or latest[-1])
        return latest[-1]

    kmock[f"get {LIST}"] << answer
    heard: list[Key] = []
    store = Store(heard.append)
    informer = Informer(cluster, store, kinds.DEPLOYMENT, "shop", "x")
    task = asyncio.create_task(informer.run())
    try:
        await eventually(lambda: len(latest) >= 2)
        await eventually(lambda: {Key("shop", "b")} == set(store._objects[kinds.DEPLOYMENT]))
        assert Key("shop", "orders") in heard
    finally:
        await stop(task)


@pytest.mark.parametrize(
    "version", [ok({"gitVersion": "v1.36.2"}), refusal(403, "Forbidden")], ids=["told", "refused"]
)
async def test_a_kind_that_the_cluster_does_not_know_is_no_fault(
    kmock: RawHandler, cluster: Cluster, version: Response
) -> None:
    # As the API server itself answers, of a path that it does not serve.
    nothing = Response(status=404, payload=b"404 page not found")
    kmock["get /apis/monitoring.coreos.com/v1/servicemonitors"] << nothing
    kmock["get /version"] << version
    informer = Informer(cluster, Store(), kinds.SERVICE_MONITOR, None, None)
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.listed.wait(), 25)
        assert not informer.is_served
    finally:
        await stop(task)


async def test_a_server_that_fails_is_asked_again(kmock: RawHandler, cluster: Cluster) -> None:
    answers = iter([refusal(500, "InternalError"), refusal(429, "TooManyRequests")])
    kmock[f"get {LIST}"] << (lambda _: next(answers, ok(listed())))
    informer = Informer(cluster, Store(), kinds.DEPLOYMENT, "shop", None)
    task = asyncio.create_task(informer.run(watch=False))
    try:
        await asyncio.wait_for(informer.listed.wait(), 25)
    finally:
        await stop(task)


async def test_a_lease_that_somebody_took_first_is_waited_for(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LEASE}/l"] << lease("", 1)
    conflicts = iter([refusal(409, "Conflict"), refusal(409, "Conflict")])
    kmock[f"put {LEASE}/l"] << (lambda _: next(conflicts, ok(lease("me", 2))))

    async with Leadership(cluster, "system", "l", "me", seconds=1).held():
        assert next(conflicts, None) is None


async def test_a_lease_that_cannot_be_asked_for_is_told_once(
    kmock: RawHandler, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody led, for good, and nothing said so."""
    answers: Iterator[Any] = iter([refusal(403, "Forbidden"), refusal(403, "Forbidden"), "slow"])

    async def get(_: Any) -> Any:
        if (answer := next(answers, None)) == "slow":
            await asyncio.sleep(60)
        return answer or ok(lease("", 1))

    kmock[f"get {LEASE}/l"] << get
    kmock[f"put {LEASE}/l"] << lease("me", 2)

    async with asyncio.timeout(25), Leadership(cluster, "system", "l", "me", seconds=1).held():
        told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [("403" in line or "Forbidden" in line, "no answer" in line) for line in told] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("answer_seconds", [0.2, 0.8])
async def test_by_a_slow_api_server_somebody_leads_and_the_lease_says_for_how_long(
    kmock: RawHandler, cluster: Cluster, caplog: pytest.LogCaptureFixture, answer_seconds: float
) -> None:
    """Two answers of a fifth of the Lease were too many: nobody led, or for ten seconds."""
    written: list[dict[str, Any]] = []

    async def get(_: Any) -> Any:
        await asyncio.sleep(answer_seconds)
        return ok(lease("me" if written else "", 1))

    async def put(request: Any) -> Any:
        await asyncio.sleep(answer_seconds)
        written.append(request.data["spec"])
        return ok(lease("me", 2))

    kmock[f"get {LEASE}/l"] << get
    kmock[f"put {LEASE}/l"] << put
    async with asyncio.timeout(60), Leadership(cluster, "system", "l", "me", seconds=1).held():
        while len(written) < 4:
            await asyncio.sleep(0.02)
    assert all(each["leaseDurationSeconds"] >= 4 * answer_seconds for each in written[:4])
    told = [record for record in caplog.records if "LEASE_SECONDS" in record.getMessage()]
    # On a busy machine every API server is slow.
    assert told if 4 * answer_seconds > 1 else len(told) <= 1


async def test_a_lease_that_is_given_to_another_by_hand_is_lost_at_once(
    kmock: RawHandler, cluster: Cluster
) -> None:
    """It acted beside the other until its own time was over."""
    gets: Iterator[Any] = iter([ok(lease("", 1))])
    kmock[f"get {LEASE}/l"] << (lambda _: next(gets, ok(lease("another", 3))))
    puts: Iterator[Any] = iter([ok(lease("me", 2))])
    kmock[f"put {LEASE}/l"] << (lambda _: next(puts, refusal(409, "Conflict")))
    began = time.monotonic()
    with pytest.raises(BaseExceptionGroup) as lost:
        async with asyncio.timeout(25), Leadership(cluster, "system", "l", "me", seconds=15).held():
            await asyncio.sleep(60)
    assert lost.group_contains(LeadershipLost)
    assert time.monotonic() - began < 8


async def test_a_holder_that_does_not_renew_is_replaced_by_our_own_clock(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LEASE}/l"] << lease("another", 1, renewed="2099-01-01T00:00:00.000000Z")
    kmock[f"put {LEASE}/l"] << lease("me", 2)
    leadership = Leadership(cluster, "system", "l", "me", seconds=1)

    async with asyncio.timeout(25), leadership.held():
        assert leadership.is_leader


async def test_a_leader_that_cannot_renew_stops_before_the_lease_is_over(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LEASE}/l"] << lease("", 1)
    broken = itertools.repeat(refusal(500, "InternalError"))
    puts: Iterator[Any] = itertools.chain([ok(lease("me", 2))], broken)
    kmock[f"put {LEASE}/l"] << (lambda _: next(puts))

    with pytest.raises(BaseExceptionGroup) as lost:
        async with asyncio.timeout(25), Leadership(cluster, "system", "l", "me", seconds=1).held():
            await asyncio.sleep(60)
    assert lost.group_contains(LeadershipLost)


async def test_a_leader_that_hears_no_answer_stops_before_the_lease_is_over(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LEASE}/l"] << lease("", 1)
    puts: Iterator[Any] = iter([ok(lease("me", 2))])

    async def put(_: Any) -> Any:
        if (answer := next(puts, None)) is None:
            await asyncio.sleep(60)
        return answer

    kmock[f"put {LEASE}/l"] << put
    leadership = Leadership(cluster, "system", "l", "me", seconds=6)
    started, stopped = time.monotonic(), float("inf")

    async def lead() -> None:
        nonlocal stopped
        try:
            await asyncio.sleep(60)
        finally:
            stopped = time.monotonic()

    with pytest.raises(BaseExceptionGroup):
        async with asyncio.timeout(25), leadership.held():
            await lead()
    assert stopped - started < 6


async def test_failures_are_tried_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "FIRST_BACKOFF_SECONDS", 0.01)
    queue, key = WorkQueue(), Key("shop", "orders")
    queue.add(key)
    pauses = []
    for _ in range(5):
        assert key == await asyncio.wait_for(queue.take(), 25)
        pauses.append(queue.failed(key))

    assert pauses[-1] > pauses[0]
    await queue.take()
    queue.done(key)
    assert 0 == len(queue)


async def test_a_fault_that_lasts_never_leads_to_more_and_more_visits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "FIRST_BACKOFF_SECONDS", 0.2)
    monkeypatch.setattr(work, "LONGEST_BACKOFF_SECONDS", 0.2)
    queue, key = WorkQueue(), Key("shop", "orders")
    for _ in range(50):  # a look at the database leads to a visit, whatever became of the last one
        queue.add(key)
        queue.failed(await queue.take())

    again = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                queue.failed(await queue.take())
                again += 1
    assert again <= 5


async def test_what_changes_during_a_visit_that_fails_does_not_wait_for_a_minute() -> None:
    """Whoever changed a resource while one of its objects was refused waited for the next try."""
    queue, key = WorkQueue(), Key("shop", "orders")
    for _ in range(20):
        queue.add(key)
        queue.failed(await queue.take())
    queue.add(key)
    assert key == await queue.take()
    queue.add(key)

    assert queue.failed(key) <= 1
    assert key == await asyncio.wait_for(queue.take(), 25)


async def test_a_visit_that_went_well_is_followed_by_one_as_soon_as_it_asks_for() -> None:
    """The pause after failures before it stood, up to a minute."""
    queue, key = WorkQueue(), Key("shop", "orders")
    for _ in range(20):
        queue.add(key)
        queue.failed(await queue.take())
    queue.add(key)
    queue.done(await queue.take(), 0.01)

    assert key == await asyncio.wait_for(queue.take(), 25)


async def test_what_changes_during_a_visit_is_visited_again_once() -> None:
    queue, key = WorkQueue(), Key("shop", "orders")
    for _ in range(3):
        queue.add(key)
    assert key == await queue.take()
    queue.add(key)
    queue.add(key)
    assert 1 == len(queue)
    queue.done(key)
    assert key == await asyncio.wait_for(queue.take(), 25)
    queue.done(key)
    assert 0 == len(queue)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel it and wait for its end, so that it leaves no connection behind."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def lease(holder: str, version: int, renewed: str | None = None) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 1, "renewTime": renewed}
    metadata = {"name": "l", "namespace": "system", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec}


def test_a_clock_that_was_set_back_makes_no_pod_unschedulable() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    scheduled["lastTransitionTime"] = "2030-01-01T12:00:00Z"
    pod = {"metadata": {"name": "a"}, "status": {"conditions": [scheduled]}}
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)

    assert Pod.parse(pod, noon - timedelta(hours=1)).trouble is None
    assert Pod.parse(pod, noon + timedelta(seconds=59)).trouble is None
    assert Trouble.UNSCHEDULABLE == Pod.parse(pod, noon + timedelta(seconds=60)).trouble
