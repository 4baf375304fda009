"""What a run of the tests left out, in one line: a skip looks like a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol


class Skipped(Protocol):
    """A report of pytest's: `longrepr` is the file, the line and why."""

    longrepr: object


def describe(reports: Iterable[Skipped]) -> str:
    """How many tests were skipped for each reason, most first."""
    reasons = Counter(_reason(report.longrepr) for report in reports)
    if not reasons:
        return "not tried: nothing"
    parts = [f"{why} ({count})" for why, count in reasons.most_common()]
    return f"not tried: {reasons.total()} tests: {'; '.join(parts)}"


def _reason(longrepr: object) -> str:
    words = longrepr[-1] if isinstance(longrepr, tuple) else longrepr
    return " ".join(str(words).removeprefix("Skipped: ").split())
