"""Failed runs, grouped by what went wrong and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from openworkflow.backend.board import FailedRun
from openworkflow.web.pages.failures import grouped


def failed(
    minute: int,
    kind: str | None = "shop.orders:CardDeclined",
    message: str = "declined",
    traceback: str = "",
    workflow: str = "order",
) -> FailedRun:
    at = datetime(2026, 11, 27, 12, tzinfo=UTC) + timedelta(minutes=minute)
    return FailedRun(
        id=uuid4(),
        workflow_name=workflow,
        created_at=at,
        failed_at=at,
        type=kind,
        message=message,
        traceback=traceback,
        cause=None,
    )


def trace(line: int, function: str = "charge") -> str:
    return (
        f'  File "/app/shop/orders.py", line {line}, in {function}\n    raise CardDeclined\n'
        '  File "/site/openworkflow/engine/calls.py", line 7, in call\n'
    )


def test_failures_of_one_place_are_one_group_however_the_lines_moved() -> None:
    (group,) = grouped([failed(0, traceback=trace(10)), failed(5, traceback=trace(12))])

    assert (2, "CardDeclined", "charge in orders.py") == (group.runs, group.type, group.frame)
    assert timedelta(minutes=5) == group.last - group.first
    assert (100, 100) == (group.bars[0], group.bars[-1])
    assert "status:failed workflow:order error:CardDeclined" == group.where


def test_places_types_and_workflows_are_told_apart_and_the_most_come_first() -> None:
    groups = grouped(
        [
            failed(0, traceback=trace(1)),
            failed(1, traceback=trace(1)),
            failed(2, traceback=trace(1, "refund")),
            failed(3, kind="builtins:OSError", traceback=trace(1)),
            failed(4, workflow="ship", traceback=trace(1)),
        ]
    )

    assert [2, 1, 1, 1] == [group.runs for group in groups]


def test_without_a_traceback_what_varies_in_the_message_does_not_count() -> None:
    told = ["order 17 of 0x7f is gone", "order 99 of 0x8e is gone", "nothing"]

    assert [2, 1] == [group.runs for group in grouped([failed(0, message=text) for text in told])]


def test_an_error_of_another_program_is_a_group_too() -> None:
    (group,) = grouped([failed(0, kind=None)])

    assert "unknown" == group.type
