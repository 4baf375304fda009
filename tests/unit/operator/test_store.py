"""The operator's picture of the cluster, whatever order its news come in."""

from __future__ import annotations

from typing import Any

import pytest

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.store import MOST_GRAVES, Store

ORDERS, SHOP = Key("shop", "orders"), Key("shop", "shop")
OWNER_LABEL = "openworkflow.dev/workflow-namespace"


def item(name: str, version: int, owner: str | None = "orders", uid: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "shop", "uid": uid or name}
    metadata["labels"] = {} if owner is None else {OWNER_LABEL: owner}
    controller = {"uid": "uid-1", "controller": True}
    metadata |= {"resourceVersion": str(version), "ownerReferences": [controller]}
    return {"metadata": metadata, "spec": {}}


def names(store: Store, key: Key) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in store.pods(key))


def test_the_store_prefers_the_newer_and_never_revives_the_dead() -> None:
    store = Store()
    store.put(kinds.DEPLOYMENT, item("orders-worker", 5))
    store.put(kinds.DEPLOYMENT, item("orders-worker", 4) | {"spec": {"old": True}})
    assert {} == store.owned(ORDERS, "uid-1")[kinds.DEPLOYMENT]["spec"]

    store.remove(kinds.DEPLOYMENT, item("orders-worker", 7))
    store.put(kinds.DEPLOYMENT, item("orders-worker", 6))
    store.put(kinds.DEPLOYMENT, item("orders-worker", 7))
    assert {} == store.owned(ORDERS, "uid-1")
    assert MOST_GRAVES > 500


def test_a_list_does_not_bury_what_was_made_after_it() -> None:
    store = Store()
    store.put(kinds.DEPLOYMENT, item("orders-worker", 11))

    store.replace(kinds.DEPLOYMENT, None, [], "10")  # its answer was on the way
    assert kinds.DEPLOYMENT in store.owned(ORDERS, "uid-1")

    store.replace(kinds.DEPLOYMENT, None, [], "12")
    assert {} == store.owned(ORDERS, "uid-1")
    store.put(kinds.DEPLOYMENT, item("orders-worker", 11))
    assert {} == store.owned(ORDERS, "uid-1")


@pytest.mark.parametrize("taken_to", ["shop", None])
def test_a_pod_that_was_relabelled_is_in_no_index_of_its_old_owner(taken_to: str | None) -> None:
    heard: list[Key] = []
    store = Store(heard.append)
    store.put(kinds.POD, item("a", 1))
    store.put(kinds.POD, item("b", 1))
    heard.clear()
    if taken_to is None:  # no watch by label tells of it any more, but that it is gone
        store.remove(kinds.POD, item("a", 2, owner=None))
    else:
        store.put(kinds.POD, item("a", 2, owner=taken_to))
        assert ["a"] == names(store, SHOP)
        assert [ORDERS, SHOP] == heard
    assert ["b"] == names(store, ORDERS)

    store.remove(kinds.POD, item("a", 3, owner=taken_to))

    assert ["b"] == names(store, ORDERS)
    assert [] == names(store, SHOP)
    assert ORDERS in heard


def test_a_pod_that_is_labelled_again_comes_back() -> None:
    store = Store()
    store.put(kinds.POD, item("a", 1))
    store.remove(kinds.POD, item("a", 2, owner=None))

    store.put(kinds.POD, item("a", 3))

    assert ["a"] == names(store, ORDERS)


def test_a_deployment_that_was_relabelled_is_no_fleet_of_its_old_owner() -> None:
    store = Store()
    build = item("orders-worker-1", 1)
    build["metadata"]["labels"]["openworkflow.dev/build"] = "1"
    store.put(kinds.DEPLOYMENT, build)
    assert ["1"] == list(store.fleets(ORDERS, "uid-1"))

    taken = item("orders-worker-1", 2, owner="shop")
    store.put(kinds.DEPLOYMENT, taken)
    store.remove(kinds.DEPLOYMENT, taken)

    assert {} == store.fleets(ORDERS, "uid-1")


def test_the_late_news_of_an_earlier_object_s_end_do_not_remove_its_successor() -> None:
    store = Store()
    store.put(kinds.SERVICE, item("orders-worker", 5, uid="second"))

    store.remove(kinds.SERVICE, item("orders-worker", 4, uid="first"))
    assert kinds.SERVICE in store.owned(ORDERS, "uid-1")

    store.remove(kinds.SERVICE, item("orders-worker", 6, uid="second"))
    assert {} == store.owned(ORDERS, "uid-1")


def test_a_kind_that_was_not_served_for_a_moment_comes_back_as_it_was() -> None:
    store = Store()
    store.put(kinds.SERVICE_MONITOR, item("orders-worker", 5))

    store.replace(kinds.SERVICE_MONITOR, None, [], "")
    assert {} == store.owned(ORDERS, "uid-1")
    store.put(kinds.SERVICE_MONITOR, item("orders-worker", 5))

    assert kinds.SERVICE_MONITOR in store.owned(ORDERS, "uid-1")


def test_what_has_the_label_and_another_owner_is_not_owned() -> None:
    store = Store()
    store.put(kinds.SERVICE, item("orders-worker", 5))

    assert {} == store.owned(ORDERS, "uid-2")


def test_the_answer_to_a_scaling_that_a_watch_overtook_changes_nothing() -> None:
    store = Store()
    store.put(kinds.DEPLOYMENT, item("orders-worker", 9) | {"spec": {"replicas": 5}})

    late = {"metadata": {"resourceVersion": "8"}, "spec": {"replicas": 2}}
    store.scaled(Key("shop", "orders-worker"), late)

    assert {"replicas": 5} == store.owned(ORDERS, "uid-1")[kinds.DEPLOYMENT]["spec"]


def test_what_is_not_listed_is_not_known_to_be_absent() -> None:
    store = Store()
    store.replace(kinds.POD, "a", [], "7")

    assert store.knows(kinds.POD, "a")
    assert not store.knows(kinds.POD, "b")
    assert not store.knows(kinds.DEPLOYMENT, "a")
    store.lose(kinds.POD, "a")
    assert not store.knows(kinds.POD, "a")
    store.replace(kinds.POD, None, [], "8")
    assert store.knows(kinds.POD, "b")
