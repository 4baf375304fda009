"""Two resources with one database, schema and namespace id: the older acts."""

from __future__ import annotations

from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.decide.rivals import Rivals

HERE = ("db.example.com", "public", "orders")
ELSEWHERE = ("db.example.com", "public", "invoices")


def resource(name: str, created: str, uid: str = "") -> WorkflowNamespace:
    key = Key("shop", name)
    return WorkflowNamespace(key, uid or name, 1, created, "orders", Database("db"), Worker("i"))


OLD = resource("old", "2030-01-01T00:00:00Z")
YOUNG = resource("young", "2030-01-01T00:00:01Z")


def test_the_older_wins_whoever_claims_first() -> None:
    for order in ([OLD, YOUNG], [YOUNG, OLD]):
        rivals = Rivals(lambda _: None)
        for each in order:
            rivals.claim(each, HERE)

        assert rivals.winner(OLD.key) is None
        assert OLD.key == rivals.winner(YOUNG.key)


def test_of_two_of_one_second_always_the_same_wins() -> None:
    twin = resource("twin", OLD.created_at, uid="zzz")
    rivals = Rivals(lambda _: None)
    rivals.claim(twin, HERE)
    rivals.claim(OLD, HERE)

    assert OLD.key == rivals.winner(twin.key)


def test_every_rival_hears_of_a_change() -> None:
    told: list[Key] = []
    rivals = Rivals(told.append)
    rivals.claim(OLD, HERE)
    rivals.claim(OLD, HERE)
    assert told == []

    rivals.claim(YOUNG, HERE)
    assert {OLD.key, YOUNG.key} == set(told)
    told.clear()
    rivals.claim(OLD, ELSEWHERE)
    assert [YOUNG.key] == told
    assert rivals.winner(YOUNG.key) is None


def test_what_claims_nothing_is_known_and_nobodys_rival() -> None:
    rivals = Rivals(lambda _: None)
    rivals.claim(OLD, None)
    rivals.claim(YOUNG, HERE)

    assert rivals.knows(OLD.key)
    assert rivals.winner(OLD.key) is None
    assert rivals.winner(YOUNG.key) is None
    rivals.withdraw(YOUNG.key)
    rivals.withdraw(YOUNG.key)
    assert not rivals.knows(YOUNG.key)
