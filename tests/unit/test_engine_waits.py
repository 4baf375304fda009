"""What a run waits for, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from openworkflow.engine.waits import Waits

SOON = datetime(2026, 1, 1, tzinfo=UTC)
LATER = SOON + timedelta(days=1)


def test_a_run_waits_for_the_first_of_its_times() -> None:
    waits: Waits[str] = Waits()
    waits.begin("b", LATER)
    waits.begin("a", SOON)

    assert (2, SOON) == (len(waits), waits.earliest)

    waits.end("a")
    assert (1, LATER) == (len(waits), waits.earliest)


def test_a_wait_without_a_time_ends_by_a_wake_only() -> None:
    waits: Waits[str] = Waits()
    waits.begin("a", None)
    assert waits.earliest is None
    assert len(waits) == 1

    waits.begin("b", LATER)
    assert LATER == waits.earliest


def test_a_wait_that_ends_twice_has_ended() -> None:
    waits: Waits[str] = Waits()
    waits.begin("a", SOON)
    waits.end("a")
    waits.end("a")

    assert not waits
    assert waits.earliest is None
