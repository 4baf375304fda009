"""Two installations that watch the same resources: the younger stands back while the older acts."""

from __future__ import annotations

import dataclasses
from typing import Any

from openworkflow_operator.api.spec import Database, Key, Worker, WorkflowNamespace
from openworkflow_operator.decide.installations import ABANDONED_SECONDS, Elders, Installation

OLD = Installation("uid-b", "2030-01-01T00:00:00Z")
YOUNG = Installation("uid-a", "2030-01-01T00:00:01Z")


def kept(by: Installation | None, written: int = 0) -> WorkflowNamespace:
    mark = {} if by is None else {"operator": by.mark}
    status: dict[str, Any] = {"lastObservationTime": written, **mark}
    parts = (Database("db"), Worker("i"))
    return WorkflowNamespace(Key("shop", "orders"), "u", 1, "", "orders", *parts, status=status)


def test_the_older_acts_whatever_the_younger_wrote() -> None:
    assert not Elders(OLD).keep(kept(YOUNG), 0)
    assert not Elders(OLD).keep(kept(OLD), 0)
    assert not Elders(OLD).keep(kept(None), 0)
    assert not Elders(None).keep(kept(OLD), 0)


def test_the_younger_stands_back_while_the_older_goes_on_writing() -> None:
    elders = Elders(YOUNG)
    for now in range(0, 10_000, 250):
        assert elders.keep(kept(OLD, written=now), float(now))


def test_what_nobody_keeps_any_more_is_taken_over() -> None:
    elders = Elders(YOUNG)
    assert elders.keep(kept(OLD), 0.0)
    assert elders.keep(kept(OLD), ABANDONED_SECONDS - 1)
    assert not elders.keep(kept(OLD), ABANDONED_SECONDS)


def test_what_was_taken_over_is_kept_until_the_first_status_is_written() -> None:
    """A visit may fail before that; the next one stood back, for seven minutes more."""
    elders = Elders(YOUNG)
    assert elders.keep(kept(OLD), 0.0)
    for later in range(3):
        assert not elders.keep(kept(OLD), ABANDONED_SECONDS + later)

    assert elders.keep(kept(OLD, written=9), ABANDONED_SECONDS + 9)


def test_one_that_comes_back_is_heeded_again() -> None:
    elders = Elders(YOUNG)
    assert elders.keep(kept(OLD), 0.0)
    assert not elders.keep(kept(OLD), ABANDONED_SECONDS)
    assert not elders.keep(kept(YOUNG), ABANDONED_SECONDS + 1)

    assert elders.keep(kept(OLD, written=9), ABANDONED_SECONDS + 2)


def test_a_mark_that_makes_no_sense_holds_up_nobody() -> None:
    elders = Elders(YOUNG)
    odds: list[Any] = ["", [], {"id": 7, "since": "9999"}]
    for odd in odds:
        resource = dataclasses.replace(kept(None), status={"operator": odd})
        assert not elders.keep(resource, 0.0)
