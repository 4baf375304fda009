"""Resources with one database, schema and namespace id: the oldest that can read it acts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason, Observation
from openworkflow_operator.decide.rivals import Rivals, Standing
from openworkflow_operator.decide.scaling import Demand

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HERE = ("db.example.com", "public", "orders")
ELSEWHERE = ("db.example.com", "public", "invoices")


def resource(name: str, created: str, uid: str = "") -> WorkflowNamespace:
    key = Key("shop", name)
    return WorkflowNamespace(key, uid or name, 1, created, "orders", Database("db"), Worker("i"))


OLD = resource("old", "2030-01-01T00:00:00Z")
YOUNG = resource("young", "2030-01-01T00:00:01Z")
ACTS, WAITS, YIELDS = (Standing.ACTS, None), (Standing.WAITS, None), (Standing.YIELDS, OLD.key)


def claimed(*order: WorkflowNamespace, **proofs: bool) -> Rivals:
    rivals = Rivals(lambda _: None)
    for each in order:
        rivals.claim(each, HERE, each.key)
    for name, is_open in proofs.items():
        rivals.prove(Key("shop", name), is_open)
    return rivals


@pytest.mark.parametrize(
    ("proofs", "old", "young"),
    [
        ({}, ACTS, WAITS),
        ({"young": True}, ACTS, WAITS),
        ({"young": False}, ACTS, WAITS),
        ({"old": True}, ACTS, YIELDS),
        ({"old": True, "young": True}, ACTS, YIELDS),
        ({"old": True, "young": False}, ACTS, YIELDS),
        ({"old": False}, ACTS, WAITS),
        ({"old": False, "young": False}, ACTS, WAITS),
        ({"old": False, "young": True}, ACTS, ACTS),
    ],
)
def test_the_oldest_that_is_proven_acts_whoever_claims_first(
    proofs: dict[str, bool], old: object, young: object
) -> None:
    for order in itertools.permutations([OLD, YOUNG]):
        rivals = claimed(*order, **proofs)

        assert (old, young) == (rivals.standing(OLD.key), rivals.standing(YOUNG.key))


def test_one_alone_acts_proven_or_not() -> None:
    assert ACTS == claimed(YOUNG).standing(YOUNG.key)
    assert ACTS == claimed(YOUNG, young=False).standing(YOUNG.key)


def test_what_is_proven_stays_so_while_the_database_is_down() -> None:
    rivals = claimed(OLD, YOUNG, old=True)
    rivals.prove(OLD.key, False)

    assert YIELDS == rivals.standing(YOUNG.key)


def test_other_credentials_have_to_be_proven_anew() -> None:
    rivals = claimed(OLD, YOUNG, old=True)
    rivals.claim(OLD, HERE, "a rotated password")
    assert WAITS == rivals.standing(YOUNG.key)

    rivals.prove(OLD.key, False)
    rivals.prove(YOUNG.key, True)
    assert ACTS == rivals.standing(YOUNG.key)

    rivals.prove(OLD.key, True)
    assert YIELDS == rivals.standing(YOUNG.key)


def test_an_outage_that_both_saw_refuses_neither() -> None:
    """After it the younger one was read first, and made a fleet beside that of the older one."""
    down = DatabaseProblem(DatabaseReason.UNREACHABLE, "", serial=1)
    rivals = claimed(OLD, YOUNG)
    rivals.learn(OLD.key, down)
    rivals.learn(YOUNG.key, replace(down, serial=2))
    assert WAITS == rivals.standing(YOUNG.key)

    seen = Observation(Demand(due=0, oldest_due_age=0.0, running=0), NOW, serial=3)
    rivals.learn(YOUNG.key, seen)
    assert WAITS == rivals.standing(YOUNG.key)
    rivals.learn(OLD.key, replace(seen, serial=4))
    assert YIELDS == rivals.standing(YOUNG.key)


def test_one_that_is_shut_out_while_another_is_let_in_holds_up_nobody() -> None:
    """Such as a role that may have no connection, which looks like an outage."""
    told: list[Key] = []
    rivals = Rivals(told.append)
    for each in (OLD, YOUNG):
        rivals.claim(each, HERE, each.key)
    full = DatabaseProblem(DatabaseReason.TOO_MANY_CONNECTIONS, "", serial=2)
    seen = Observation(Demand(due=0, oldest_due_age=0.0, running=0), NOW, serial=3)
    rivals.learn(OLD.key, full)
    rivals.learn(YOUNG.key, seen)
    assert WAITS == rivals.standing(YOUNG.key)

    told.clear()
    for serial in (4, 4, 6):
        rivals.learn(OLD.key, replace(full, serial=serial))
        assert [YOUNG.key] == told
        assert ACTS == rivals.standing(YOUNG.key)
    rivals.learn(YOUNG.key, replace(seen, serial=7))
    assert ACTS == rivals.standing(YOUNG.key)


def test_of_two_of_one_second_always_the_same_acts() -> None:
    twin = resource("twin", OLD.created_at, uid="zzz")
    rivals = claimed(twin, OLD, twin=True, old=True)

    assert YIELDS == rivals.standing(twin.key)


def test_every_rival_hears_of_a_change() -> None:
    told: list[Key] = []
    rivals = Rivals(told.append)
    rivals.claim(OLD, HERE)
    rivals.claim(OLD, HERE)
    assert told == []

    rivals.claim(YOUNG, HERE)
    assert [OLD.key] == told
    told.clear()
    rivals.prove(OLD.key, True)
    rivals.prove(OLD.key, True)
    assert [YOUNG.key] == told
    told.clear()
    rivals.claim(OLD, ELSEWHERE)
    assert [YOUNG.key] == told
    assert ACTS == rivals.standing(YOUNG.key)


def test_what_claims_nothing_is_known_and_nobodys_rival() -> None:
    rivals = Rivals(lambda _: None)
    rivals.claim(OLD, None)
    rivals.claim(YOUNG, HERE)

    assert rivals.knows(OLD.key)
    assert ACTS == rivals.standing(OLD.key) == rivals.standing(YOUNG.key)
    rivals.withdraw(YOUNG.key)
    rivals.withdraw(YOUNG.key)
    assert not rivals.knows(YOUNG.key)
