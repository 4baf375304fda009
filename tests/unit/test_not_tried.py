"""What was skipped is said in one line."""

from __future__ import annotations

from dataclasses import dataclass

from tests.not_tried import describe


@dataclass
class Report:
    longrepr: object


def skipped(why: str) -> Report:
    return Report(("tests/test_a.py", 3, f"Skipped: {why}"))


def test_each_reason_is_counted_and_the_most_frequent_comes_first() -> None:
    reports = [skipped("needs helm"), skipped("needs\n  promtool"), skipped("needs promtool")]

    assert "not tried: 3 tests: needs promtool (2); needs helm (1)" == describe(reports)


def test_that_nothing_was_left_out_is_said_too() -> None:
    assert "not tried: nothing" == describe([])
