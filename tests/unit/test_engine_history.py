"""What a replay is given, and in which order: a history of rows, of this version and of others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from openworkflow.core.errors import NonDeterminism
from openworkflow.core.recorded import UNREADABLE, RecordedStep
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine.history import History
from openworkflow.engine.keys import Branch


def row(key: str, number: int | None = None, claim: int = 1, **columns: Any) -> RecordedStep:
    """A success, unless told otherwise."""
    context = columns.pop("context", None)
    values = {
        "step_name": key,
        "kind": "run",
        "status": "succeeded",
        "attempt": 1,
        "claim_no": claim,
        "output": json.dumps(key),
        "error": None,
        "context": None if context is None else json.dumps(context),
        "resume_at": None,
        "id": uuid4(),
        "completion_no": number,
        **columns,
    }
    return RecordedStep(**values)


def failure(key: str, attempt: int = 1, claim: int = 1, **columns: Any) -> RecordedStep:
    return row(key, claim=claim, status="failed", attempt=attempt, output=None, **columns)


def final(key: str, number: int, claim: int = 1, **columns: Any) -> RecordedStep:
    return failure(key, claim=claim, completion_no=number, final=True, **columns)


def events(history: History, *asked: str) -> list[str]:
    """The events that are handed out to a function that has asked for these."""
    branch = Branch()
    for name in asked:
        history.keys.request(name, branch)
    found = []
    while (event := history.next_event()) is not None:
        found.append(event.step_name)
    return found


# -- order ---------------------------------------------------------------------------------------


def test_events_come_in_the_order_of_their_numbers_not_of_their_rows() -> None:
    history = History([row("c", 3), row("a", 1), row("b", 2)])

    assert ["a", "b", "c"] == events(history, "c", "b", "a")


def test_an_event_waits_until_the_function_asks_for_its_step_and_so_do_those_after_it() -> None:
    history = History([row("a", 1), row("b", 2)])

    assert [] == events(history, "b")
    assert ["a", "b"] == events(history, "a")


def test_everything_recorded_comes_before_anything_new() -> None:
    history = History([row("a", 1), row("b", 2)])
    before = history.pending, history.unfinished

    events(history, "a", "b")

    assert (True, True) == before
    assert (False, False) == (history.pending, history.unfinished)


def test_new_events_are_numbered_from_the_first_number_that_is_missing() -> None:
    assert 2 == History([row("b", 2), row("a", 1)]).completions
    assert 1 == History([row("a", 1), row("c", 3)]).completions
    assert 0 == History([row("b", 2)]).completions
    assert 0 == History().completions


def test_a_step_that_ended_in_a_failure_is_an_event_too() -> None:
    history = History([final("a", 1), row("b", 2)])

    assert ["a", "b"] == events(history, "a", "b")


def test_a_failure_that_is_to_be_tried_again_is_no_event() -> None:
    history = History([failure("a", 1), failure("a", 2), row("b", 1)])
    events(history, "a", "b")

    recorded = history.request("a", StepKind.RUN)

    assert recorded is not None
    assert recorded.settled is None
    assert 2 == recorded.failures


def test_a_step_alone_gets_its_event_at_once_and_only_its_own() -> None:
    history = History([row("a", 1), row("b", 2)])

    assert history.take_next("b") is None
    event = history.take_next("a")

    assert event is not None
    assert "a" == event.step_name


# -- older versions ------------------------------------------------------------------------------


def test_rows_of_a_version_that_did_not_count_are_handed_out_when_they_are_asked_for() -> None:
    history = History([row("a"), row("b")])

    assert ["b"] == events(history, "b")
    assert history.unfinished
    assert ["a"] == events(history, "a")
    assert not history.unfinished


def test_rows_that_were_not_counted_come_before_those_that_were() -> None:
    history = History([row("new", 1, claim=2), row("old", claim=1)])

    assert ["old", "new"] == events(history, "new", "old")


def test_rows_that_were_not_counted_have_to_be_asked_for() -> None:
    history = History([row("a"), row("b")])
    events(history, "a")

    assert "b" == history.unasked()


# -- claims that were lost -----------------------------------------------------------------------


def test_what_a_claim_recorded_while_it_was_lost_comes_after_the_claims_that_went_on_without() -> (
    None
):
    """Claim 1 records its `late` under number 2 while claim 2 records `b` and `c`."""
    history = History([row("a", 1), row("b", 2, 2), row("c", 3, 2), row("late", 3, 1)])

    assert ["a", "b", "c", "late"] == events(history, "late", "a", "b", "c")


def test_what_two_claims_have_not_seen_comes_after_both() -> None:
    """It came between the two, by its number."""
    history = History([row("a", 1), row("b", 2, 2), row("late", 2, 1), row("c", 3, 3)])

    assert ["a", "b", "c", "late"] == events(history, "late", "a", "b", "c")
    assert {"late"} == history.late


def test_what_comes_beyond_a_missing_number_is_recorded_again_in_its_order() -> None:
    history = History([row("a", 1), row("d", 4), row("c", 3)])

    assert ["c", "d"] == [each.step_name for each in history.overtook]
    assert ["a", "c", "d"] == events(history, "d", "c", "a")


def test_a_late_event_comes_at_once_where_the_next_one_was_only_asked_for_after_it() -> None:
    """Some claim has seen it, and could not say so any more."""
    history = History([row("late", 1), row("a", 1, 2), row("b", 2, 2)])

    assert ["a", "late"] == events(history, "a", "late")
    assert ["b"] == events(history, "b")


def test_what_a_lost_claim_recorded_late_need_not_be_asked_for() -> None:
    history = History([row("a", 1), row("b", 2, 2), row("late", 3, 1)])

    assert ["a", "b"] == events(history, "a", "b")
    assert history.pending
    assert not history.unfinished
    assert history.unasked() is None


def test_two_claims_that_recorded_one_step_are_one_event_that_of_the_later_claim() -> None:
    history = History([row("a", 1, 1, output="1"), row("a", 1, 2, output="2"), row("b", 2, 2)])
    history.keys.request("a", Branch())

    event = history.next_event()

    assert event is not None
    assert "2" == event.output


# -- a retry by hand -----------------------------------------------------------------------------


def test_a_failure_that_was_reopened_is_no_event_and_its_attempts_count_afresh() -> None:
    history = History([failure("a", 3, reopened=True, context={"reopened_at": 1}), row("b", 1)])
    assert ["b"] == events(history, "a", "b")

    recorded = history.request("a", StepKind.RUN)

    assert recorded is not None
    assert (None, 0) == (recorded.settled, recorded.failures)


def test_what_came_after_a_reopened_failure_is_handed_out_if_it_is_asked_for_at_all() -> None:
    reopened = failure(
        "bad", completion_no=1, reopened=True, context={"reopened_at": 1, "final": True}
    )
    history = History([reopened, row("fallback", 2), row("sibling", 3)])

    assert ["sibling"] == events(history, "bad", "sibling")
    assert not history.unfinished
    assert history.unasked() is None


def test_attempts_after_the_retry_by_hand_count() -> None:
    reopened = failure("a", 10, reopened=True, context={"reopened_at": 1})
    history = History([reopened, failure("a", 1, claim=2)])

    recorded = history.request("a", StepKind.RUN)

    assert recorded is not None
    assert 1 == recorded.failures


# -- attempts that do not count ------------------------------------------------------------------


def test_attempts_cut_short_by_a_crash_are_no_failures() -> None:
    history = History([failure("a", 1, interrupted=True), failure("a", 1, interrupted=True)])

    recorded = history.request("a", StepKind.RUN)

    assert recorded is not None
    assert 0 == recorded.failures


def test_rows_left_running_are_known_so_that_somebody_ends_them() -> None:
    left = row("a", status="running", output=None)
    history = History([left])

    assert ([left.id], []) == history.leftovers()


def test_a_wait_that_nobody_saw_end_is_told_apart_from_a_call_whose_worker_died() -> None:
    nap = row("nap", kind="sleep", status="running", output=None)

    assert ([], [nap.id]) == History([nap]).leftovers()


def test_a_sleep_that_two_claims_began_leaves_no_row_that_nobody_ends() -> None:
    """The first was recorded in the moment its claim was lost, too late for the second to see."""
    first, second = (
        row("nap", kind="sleep", status="running", output=None, claim_no=n) for n in (1, 2)
    )
    going_on, over = History([first, second]), History([first, row("nap", 1, kind="sleep")])

    recorded = going_on.request("nap", StepKind.SLEEP)

    assert recorded is not None
    assert first == recorded.take_sleeping()
    assert ([second.id], []) == going_on.leftovers()
    assert ([], [first.id]) == over.leftovers()


def test_a_step_that_the_workflow_cancelled_is_neither_an_event_nor_a_failure() -> None:
    history = History([failure("a", canceled=True), row("b", 1)])

    assert ["b"] == events(history, "a", "b")
    recorded = history.request("a", StepKind.RUN)
    assert recorded is not None
    assert 0 == recorded.failures


def test_a_sleep_goes_on_until_the_time_that_was_recorded() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    begun = row("nap", kind="sleep", status="running", output=None, resume_at=until)
    history = History([begun])

    recorded = history.request("nap", StepKind.SLEEP)

    assert recorded is not None
    sleeping = recorded.take_sleeping()
    assert sleeping is not None
    assert until == sleeping.resume_at
    assert ([], []) == history.leftovers()


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "status"), [("fable", "succeeded"), ("run", "waiting")])
def test_a_kind_or_status_of_a_newer_version_makes_the_history_unreadable_and_says_which(
    kind: str, status: str
) -> None:
    history = History([row("a", 1), row("b", 2, kind=kind, status=status)])

    assert history.unreadable is not None
    assert f"step 'b' is recorded as kind {kind!r}, status {status!r}" in history.unreadable
    assert "upgrade" in history.unreadable


@pytest.mark.parametrize("told", [{"branch": None}, {"branch": [1]}, {"branch": "1", "nth": "0"}])
def test_a_call_that_is_told_in_another_way_makes_the_history_unreadable(told: Any) -> None:
    """A run of a newer version was failed for good, as if it had asked for something else."""
    history = History([row("a", 1, context=told)])

    assert history.unreadable is not None
    assert "step 'a'" in history.unreadable
    assert "upgrade" in history.unreadable


def test_rows_that_cannot_be_decoded_make_the_history_unreadable() -> None:
    history = History([row("", kind=UNREADABLE, status=UNREADABLE, error="no such year")])

    assert history.unreadable == "its rows cannot be decoded: no such year"


@pytest.mark.parametrize("context", ["[1]", '"text"', "null", "3", '{"other": "program"}'])
def test_a_context_that_another_program_wrote_does_no_harm(context: str) -> None:
    history = History([row("a", 1)._replace(context=context)])

    assert ["a"] == events(history, "a")


def test_a_record_of_another_kind_is_a_mismatch_that_names_both_kinds() -> None:
    history = History([row("a", 1)])

    with pytest.raises(NonDeterminism, match=r"'a' was recorded as a step.* asks for a sleep"):
        history.request("a", StepKind.SLEEP)


def test_a_mismatch_names_the_step_that_was_recorded_and_the_one_asked_for() -> None:
    history = History([row("a", 1), row("b", 2)])
    events(history, "a", "x")

    message = str(history.mismatch(["x"]))

    assert "has step 'b' next, but the code asks for step 'x'" in message
    assert "new version" in message


def test_a_mismatch_of_a_function_that_returned_says_so() -> None:
    history = History([row("a", 1)])

    assert "has step 'a' next, but the code returned" in str(history.mismatch([]))


def test_the_answers_of_patches_are_no_events() -> None:
    history = History([row("patched:x", None), row("a", 1)])

    assert history.is_recorded("patched:x")
    assert ["a"] == events(history, "a")
    assert not history.pending


@pytest.mark.parametrize(
    "context",
    [
        '{"branch": []}',
        '{"branch": "", "name": {}}',
        '{"branch": "", "nth": "0"}',
        '{"branch": "' + "x" * 3 + '", "nth": ' + "9" * 5000 + "}",
        '{"branch": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
    ids=["branch", "name", "nth", "digits", "depth"],
)
def test_a_context_that_says_what_no_program_of_ours_says_makes_the_history_unreadable(
    context: str,
) -> None:
    """The worker handed the run back with a TypeError, and `replay-check` ended with it."""
    history = History([row("a", 1)._replace(context=context)])

    assert history.unreadable is not None
    assert len(history.unreadable) < 400
