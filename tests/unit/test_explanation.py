"""Which reason is told of a run, and how the sentence reads; see test_explain for the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openworkflow.core.explanation import Held, Reason, Situation, Wait, explain
from openworkflow.core.ids import uuid7
from openworkflow.core.served import Served
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGO, SOON = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
NEVER = datetime(9999, 12, 30, tzinfo=UTC)
SERVED = Served(versions=(("ship-order", ""), ("bill", "2"), ("bill", "3")))
ERROR = {"type": "shop:CardDeclined", "message": "no\nmoney"}


def run_of(**columns: Any) -> WorkflowRun:
    values: dict[str, Any] = {
        "id": uuid7(),
        "namespace_id": "default",
        "workflow_name": "ship-order",
        "version": None,
        "status": RunStatus.PENDING,
        "worker_id": None,
        "available_at": AGO,
        "created_at": AGO,
        "completed_at": None,
        "deadline_at": None,
    }
    nothing: dict[str, Any] = dict.fromkeys(("config", "context", "input", "output", "error"))
    return WorkflowRun(**{**nothing, **values, **columns})


def wait_of(kind: str, **columns: Any) -> Wait:
    values: dict[str, Any] = {"id": uuid7(), "kind": kind, "name": "approval", "since": AGO}
    return Wait(**{"until": None, **values, **columns})


def told(run: WorkflowRun, *waits: Wait, **facts: Any) -> tuple[Reason, str]:
    facts = {"served": SERVED, "waits": waits, "waits_in_all": len(waits), **facts}
    explanation = explain(Situation(run=run, now=NOW, **facts))
    assert "\n" not in explanation.sentence
    return explanation.reason, explanation.sentence


RUNNING = run_of(status=RunStatus.RUNNING, worker_id="pod-1/ab", available_at=SOON, claim_no=2)
PARKED = run_of(available_at=SOON, claim_no=1, started_at=AGO)
CASES = [
    (
        run_of(status=RunStatus.SUCCEEDED, completed_at=AGO),
        (),
        Reason.ENDED,
        "it succeeded at 2026",
    ),
    (
        run_of(status=RunStatus.FAILED, completed_at=AGO, error=ERROR),
        (),
        Reason.ENDED,
        "CardDeclined: no money.",
    ),
    (
        run_of(status=RunStatus.FAILED, error={"type": "openworkflow.core.errors:PoisonPill"}),
        (),
        Reason.POISONED,
        "poison pill",
    ),
    (RUNNING, (), Reason.HELD, "worker 'pod-1/ab' executes it."),
    (RUNNING, (wait_of("run"),), Reason.HELD, "it executes step 'approval' since 2026-11-26 11:59"),
    (replace(RUNNING, available_at=AGO), (), Reason.LOST, "no other worker has taken it over"),
    (run_of(available_at=SOON), (), Reason.SCHEDULED, "it is to begin at 2026-11-26 12:01:00 UTC."),
    (PARKED, (wait_of("sleep", until=SOON),), Reason.SLEEPING, "sleeps in 'approval' until 2026"),
    (
        replace(PARKED, available_at=NEVER),
        (wait_of("signal"),),
        Reason.WAITING,
        "it waits for signal 'approval' since 2026-11-26 11:59:00 UTC.",
    ),
    (PARKED, (wait_of("signal", until=SOON),), Reason.WAITING, ", until 2026-11-26 12:01:00 UTC."),
    (PARKED, (wait_of("child", child=uuid7()),), Reason.WAITING, "it waits for child 0"),
    (
        PARKED,
        (wait_of("map"),),
        Reason.WAITING,
        "for the children of map 'approval' since",
    ),
    (
        PARKED,
        (wait_of("run", until=SOON, error=ERROR, attempt=2),),
        Reason.RETRYING,
        "tries again at 2026-11-26 12:01:00 UTC, since attempt 2 of step 'approval' failed with "
        "CardDeclined: no money.",
    ),
    (replace(PARKED, error=ERROR, attempts=3), (), Reason.RETRYING, "attempt 3 of it failed with"),
    (replace(PARKED, available_at=NEVER), (), Reason.WAITING, "until something wakes it."),
    (run_of(), (), Reason.DUE, "waits for a worker with room."),
    (
        run_of(workflow_name="ship_order"),
        (),
        Reason.UNSERVED,
        "'ship_order'; those that are served include 'ship-order'.",
    ),
    (
        run_of(workflow_name="bill", version="4"),
        (),
        Reason.UNSERVED,
        "'4', but with version '2' or version '3'.",
    ),
    (run_of(pinned=True, build_id="b1"), (), Reason.BUILD, "pinned to build 'b1'"),
]


@pytest.mark.parametrize(("run", "waits", "reason", "words"), CASES)
def test_each_reason_is_told(
    run: WorkflowRun, waits: tuple[Wait, ...], reason: Reason, words: str
) -> None:
    found, sentence = told(run, *waits)

    assert reason == found
    assert words in sentence


def test_where_no_worker_has_told_what_it_serves_a_run_is_not_called_unserved() -> None:
    assert (Reason.DUE, True) == (
        (answer := told(run_of(), served=Served()))[0],
        "whether one serves it is not known" in answer[1],
    )


def test_a_due_run_says_how_many_are_before_it_and_which_build_takes_it() -> None:
    assert "behind 7 of its workflow" in told(run_of(), ahead=7)[1]
    assert "behind 1000 or more of its workflow" in told(run_of(), ahead=1000)[1]
    assert "build 'b2' takes runs like it" in told(run_of(), takers=("b2",))[1]


def test_of_thousands_of_waits_three_are_in_the_sentence() -> None:
    waits = [wait_of("signal", name=f"s{number}") for number in range(50)]

    assert "'s2' since 2026-11-26 11:59:00 UTC and 3,997 more." in told(
        PARKED, *waits, waits_in_all=4000
    )[1].replace("3997", "3,997")


def test_what_comes_after_a_wait_for_others_does_not_hide_it() -> None:
    assert Reason.WAITING == told(PARKED, wait_of("sleep", until=SOON), wait_of("signal"))[0]


def test_of_a_paused_run_the_pause_is_told_and_then_what_the_run_would_do() -> None:
    """It read "the namespace was paused, and would be due": the namespace would."""
    pause = Held(subject="namespace", by="ann", reason="an incident", since=AGO)
    held = run_of(available_at=NEVER, due_at=AGO)
    asleep = replace(PARKED, available_at=NEVER, due_at=SOON)

    assert told(held, pauses=(pause,))[1] == (
        "the namespace was paused by 'ann' at 2026-11-26 11:59:00 UTC ('an incident'); "
        "without that it would be due since 2026-11-26 11:59:00 UTC."
    )
    sleeping = told(asleep, wait_of("sleep", until=SOON), pauses=(pause,))[1]
    assert "; meanwhile it sleeps in 'approval' until 2026" in sleeping


def test_a_name_is_a_stranger_only_if_no_version_of_it_is_served() -> None:
    assert SERVED.stranger("bill") is None
    assert Served().stranger("bill") is None
    assert "include 'bill'" in str(SERVED.stranger("bil"))
