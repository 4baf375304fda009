"""What may come of a watch or a list: pages of proxies, cut lines, streams that end at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from kmock import RawHandler, Response  # type: ignore[attr-defined]
from kubernetes.aio.client import ApiClient, Configuration

from openworkflow_operator import handlers
from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster import informer as informers
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.informer import Informer
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.process import Operator
from openworkflow_operator.settings import Settings
from tests.helpers import eventually

LIST = "/apis/apps/v1/namespaces/shop/deployments"
PAGE = b"<html><body>Please log in</body></html>"
KEY = Key("shop", "a")


@pytest.fixture
async def cluster(kmock: RawHandler) -> AsyncIterator[Cluster]:
    async with ApiClient(Configuration(host=str(kmock.url).rstrip("/"))) as client:
        yield Cluster(client)


def deployment(version: int, **more: Any) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "shop", "uid": "a", "resourceVersion": str(version)}
    labels = {"labels": {"openworkflow.dev/workflow-namespace": "orders"}}
    return {"metadata": metadata | labels, "spec": more}


def listed(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "metadata": {"resourceVersion": "10"}}


def event(change: str, item: Any) -> bytes:
    return json.dumps({"type": change, "object": item}).encode() + b"\n"


@contextlib.asynccontextmanager
async def running(cluster: Cluster, store: Store) -> AsyncIterator[asyncio.Task[None]]:
    informer = Informer(cluster, store, kinds.DEPLOYMENT, "shop", None)
    task = asyncio.create_task(informer.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


BROKEN = {
    "a proxy's page": PAGE,
    "a cut line": event("MODIFIED", deployment(11))[:40] + b"\n",
    "another type": b"[]\n",
    "no object": event("MODIFIED", None),
    "no metadata": event("MODIFIED", {}),
    "no name": event("MODIFIED", {"metadata": {"resourceVersion": "11"}}),
    "metadata of another type": event("MODIFIED", {"metadata": []}),
    "nothing": b"",
    "an empty error": event("ERROR", {}),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_a_watch_that_is_none_ends_nothing_and_is_asked_for_again(
    kmock: RawHandler, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 0.01)
    good = event("MODIFIED", deployment(12, good=True))
    answers = iter([Response(payload=broken + b"\n"), Response(payload=broken)])

    def answer(request: Any) -> Any:
        if request.params.get("watch"):
            return next(answers, Response(payload=good))
        return listed(deployment(1))

    kmock[f"get {LIST}"] << answer
    store = Store()
    async with running(cluster, store) as task:
        await eventually(
            lambda: task.done() or (store.get(kinds.DEPLOYMENT, KEY) or {}).get("spec")
        )
        assert not task.done()
        assert {"good": True} == (store.get(kinds.DEPLOYMENT, KEY) or {})["spec"]


@pytest.mark.parametrize(
    "page", [PAGE, b"[]", b"{}", b'{"items": {}}', b'{"items": [1], "metadata": {}}']
)
async def test_a_list_that_is_none_is_an_error_of_the_cluster(
    kmock: RawHandler, cluster: Cluster, page: bytes
) -> None:
    kmock[f"get {LIST}"] << Response(status=200, payload=page)

    with pytest.raises(ClusterError) as refused:
        await cluster.list(kinds.DEPLOYMENT, "shop")
    assert 0 == refused.value.status


@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.WORKFLOW_NAMESPACE], ids=str)
async def test_a_proxy_s_page_of_what_is_not_there_takes_nothing_for_none(
    kmock: RawHandler, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: kinds.Kind
) -> None:
    """One before an API server that restarts answers 404: all was forgotten, for a minute."""
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 0.01)
    store, asked, returns = Store(), [], []

    def page(_: object) -> Response:
        asked.append(1)
        return Response(status=404, payload=PAGE)

    kmock[f"get {kind.path('shop')}"] << page
    kmock["get /version"] << Response(status=404, payload=PAGE)
    store.put(kind, deployment(1))
    informer = Informer(cluster, store, kind, "shop", None, lambda: returns.append(1))
    task = asyncio.create_task(informer.run())
    await eventually(lambda: len(asked) >= 3)
    task.cancel()
    assert store.get(kind, KEY) is not None


async def test_a_secret_is_not_missing_because_a_proxy_says_so(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock["get /api/v1/namespaces/shop/secrets/a"] << Response(status=404, payload=PAGE)
    with pytest.raises(ClusterError):
        await cluster.get(kinds.SECRET, "shop", "a")


async def test_what_a_metrics_server_computes_has_no_version_and_is_read(
    cluster: Cluster, kmock: RawHandler
) -> None:
    # As metrics-server 0.8 answers; only what is stored has a resourceVersion.
    metadata = {"name": "orders-worker-6b58f85d7f-77kkl", "namespace": "shop"}
    usage = {"cpu": "4944032n", "memory": "35740Ki"}
    pod = {"metadata": metadata, "containers": [{"name": "worker", "usage": usage}]}
    answer = {"kind": "PodMetricsList", "metadata": {}, "items": [pod]}
    kmock["get /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"] << answer

    assert ([pod], "") == await cluster.list(kinds.POD_METRICS, "shop")


async def test_an_answer_that_is_a_proxy_s_page_is_an_error_of_the_cluster(
    kmock: RawHandler, cluster: Cluster
) -> None:
    kmock[f"get {LIST}/a"] << Response(status=200, payload=PAGE)

    with pytest.raises(ClusterError) as refused:
        await cluster.get(kinds.DEPLOYMENT, "shop", "a")
    assert "Please log in" not in str(refused.value)


@pytest.mark.parametrize("stream", [b"", event("MODIFIED", deployment(11))], ids=["empty", "one"])
async def test_watches_that_end_at_once_are_asked_for_less_and_less_often(
    kmock: RawHandler, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, stream: bytes
) -> None:
    pauses: list[float] = []
    asked: list[str] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    def answer(request: Any) -> Any:
        if request.params.get("watch"):
            asked.append("watch")
            return Response(payload=stream)
        return listed(deployment(1))

    kmock[f"get {LIST}"] << answer
    monkeypatch.setattr("openworkflow_operator.cluster.informer.asyncio.sleep", counted)
    store = Store()
    async with running(cluster, store):
        async with asyncio.timeout(25):
            while len(asked) < 12:
                await sleep(0.01)
    assert len(pauses) >= 11
    assert pauses[0] < 1 < pauses[3]
    assert min(pauses[8:11]) >= informers.LONGEST_PAUSE_SECONDS / 2


async def test_an_object_of_half_a_megabyte_is_heard_of(
    kmock: RawHandler, cluster: Cluster
) -> None:
    """aiohttp's own lines end at 128 KiB, with an error that ended the operator."""
    large = deployment(12, text="x" * 2**19)

    def answer(request: Any) -> Any:
        if request.params.get("watch"):
            return Response(payload=event("MODIFIED", large))
        return listed(deployment(1))

    kmock[f"get {LIST}"] << answer
    store = Store()
    async with running(cluster, store) as task:
        await eventually(
            lambda: task.done() or (store.get(kinds.DEPLOYMENT, KEY) or {}).get("spec")
        )
        assert not task.done()


async def test_an_object_that_the_store_cannot_take_ends_no_watch(
    kmock: RawHandler, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 0.01)
    heard: list[str] = []

    class Picky(Store):
        def put(self, kind: Any, item: Any) -> None:
            heard.append(item["metadata"]["resourceVersion"])
            raise KeyError("spec")

    kmock[f"get {LIST}"] << (lambda _: listed(deployment(1)))
    async with running(cluster, Picky()) as task:
        await eventually(lambda: task.done() or len(heard) >= 3)
        assert not task.done()


async def test_a_kopf_that_ends_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "LONGEST_PAUSE_SECONDS", 0.01)
    runs: list[str] = []
    told = asyncio.Event()

    async def run(**options: Any) -> None:
        runs.append("begun")
        if len(runs) == 1:
            raise json.JSONDecodeError("a proxy's page", "", 0)
        if len(runs) > 2:
            await asyncio.to_thread(options["stop_flag"].wait, 10)

    monkeypatch.setattr(kopf, "operator", run)
    parts = SimpleNamespace(settings=Settings(), store=Store(), watch_itself=told.set)
    async with handlers.watched_by_kopf(lambda **_: None)(cast(Operator, parts)):
        await eventually(lambda: len(runs) == 3)
        assert told.is_set()


@pytest.mark.parametrize(
    ("status", "longest"), [(0, 5.0), (503, 5.0), (403, 30.0)], ids=["none", "503", "refused"]
)
async def test_an_api_server_that_is_back_is_found_within_seconds(
    monkeypatch: pytest.MonkeyPatch, status: int, longest: float
) -> None:
    """It took 29 to 40, and visits that had failed waited for a minute of their own."""
    pauses: list[float] = []
    told: list[int] = []

    class Away:
        async def list(self, *_: object) -> object:
            if len(pauses) < 12:
                raise ClusterError(status, "", "")
            return [], "7"

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    cluster = cast("Cluster", Away())
    informer = Informer(
        cluster, Store(), kinds.DEPLOYMENT, "shop", None, lambda: told.append(len(pauses))
    )
    await informer.run(watch=False)

    assert longest == max(pauses)
    assert ([] if status == 403 else [12]) == told
