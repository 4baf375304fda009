"""The timeline of a run: what is drawn where, and what is folded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from openworkflow.backend.board import StepRow
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.web.timeline import WIDTH, Timeline, timeline

BEGAN = datetime(2026, 11, 27, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def attempt(
    name: str,
    start: float,
    end: float | None,
    kind: StepKind = StepKind.RUN,
    status: StepStatus = StepStatus.SUCCEEDED,
    **more: Any,
) -> StepRow:
    given = {
        "attempt": 1,
        "claim_no": 1,
        "context": None,
        "resume_at": None,
        "output": None,
        "output_length": None,
        "error": None,
    }
    return StepRow(
        id=uuid4(),
        workflow_run_id=uuid4(),
        step_name=name,
        kind=kind,
        status=StepStatus.RUNNING if end is None else status,
        created_at=at(start),
        completed_at=None if end is None else at(end),
        **given | more,
    )


def looks(found: Timeline) -> list[list[str]]:
    return [[bar.look for bar in line.bars] for line in found.lines]


def test_a_run_without_steps_has_an_empty_timeline() -> None:
    found = timeline([], at(0), None)

    assert ([], [], 0.0) == (found.lines, found.folds, found.seconds)


def test_what_is_executed_is_drawn_to_scale() -> None:
    found = timeline([attempt("a", 0, 3), attempt("b", 3, 4)], at(4), at(4))

    a, b = (line.bars[0] for line in found.lines)
    assert (0, 750, 750, 250) == (a.x, a.width, b.x, b.width)
    assert [] == found.folds


def test_a_sleep_of_a_week_leaves_the_calls_beside_it_to_be_seen() -> None:
    week = 7 * 86400
    steps = [
        attempt("first", 0, 1),
        attempt("sleep", 1, week, StepKind.SLEEP),
        attempt("last", week, week + 1),
    ]
    found = timeline(steps, at(week + 1), at(week + 1))

    first, _, last = (line.bars[0] for line in found.lines)
    assert ["7 d"] == [told for _, told in found.folds]
    assert first.width == last.width > 450


def test_attempts_of_a_step_share_a_line_with_the_wait_between_them() -> None:
    steps = [
        attempt("charge", 0, 1, status=StepStatus.FAILED, resume_at=at(2)),
        attempt("charge", 2, None, attempt=2),
    ]
    found = timeline(steps, at(3), None)

    assert [["call failed", "retry", "call running"]] == looks(found)
    assert [] == found.failed


def test_a_wait_for_an_attempt_that_is_never_made_ends_with_the_run() -> None:
    steps = [attempt("charge", 0, 1, status=StepStatus.FAILED, resume_at=at(3600))]
    found = timeline(steps, at(5000), at(2))

    (line,) = found.lines
    assert [line] == found.failed
    assert all(bar.x + bar.width <= WIDTH + 0.1 for bar in line.bars)


def test_what_was_cut_short_is_told_apart_from_what_failed() -> None:
    failed, cut = StepStatus.FAILED, {"canceled": True}
    steps = [attempt("a", 0, 1, status=failed, context=cut), attempt("b", 0, 1, StepKind.UNDO)]

    assert [["call canceled"], ["undo"]] == looks(timeline(steps, at(1), at(1)))


moments = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            moments,
            st.none() | moments,
            st.sampled_from(StepKind),
            st.sampled_from([StepStatus.SUCCEEDED, StepStatus.FAILED]),
            st.none() | moments,
        ),
        min_size=1,
        max_size=12,
    ),
    moments,
    st.booleans(),
)
def test_whatever_the_clocks_said_every_bar_lies_within(
    rows: list[tuple[str, float, float | None, StepKind, StepStatus, float | None]],
    now: float,
    has_ended: bool,
) -> None:
    steps = [
        attempt(name, start, end, kind, status, resume_at=None if again is None else at(again))
        for name, start, end, kind, status, again in rows
    ]
    found = timeline(steps, at(now), at(now) if has_ended else None)

    bars = [bar for line in found.lines for bar in line.bars]
    assert len(bars) >= len(steps)
    assert all(-0.01 <= bar.x <= WIDTH for bar in bars)
    assert all(0 < bar.width <= WIDTH + 3.01 for bar in bars)


def test_what_the_workflow_has_cancelled_is_told_so_and_is_no_failure() -> None:
    timer = attempt("timer", 0, 1, StepKind.SLEEP, StepStatus.FAILED, context={"canceled": True})
    found = timeline([timer], at(2), None)

    assert [] == found.failed
    assert ["timer: sleep, canceled, 1 s"] == [bar.told for bar in found.lines[0].bars]
