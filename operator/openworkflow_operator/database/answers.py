"""What a database answers, of which nothing is taken for granted: the server may be hostile."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from openworkflow_contract.names import BUILD_ID
from openworkflow_operator.database.diagnosis import UnusableAnswer
from openworkflow_operator.decide.observation import NewRuns, Observation
from openworkflow_operator.decide.rollout import BuildView
from openworkflow_operator.decide.scaling import Demand

#: What is put into a status and an Event is a name, and nothing else that a database may say.
_WORKFLOW: Final = re.compile(r"[\w.:/@+-]{1,100}( [\w.:/@+-]{1,60})?", re.ASCII)
_NOT_SHOWN: Final = "(a name that is not shown)"
_MOST_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What to count for one namespace."""

    namespace_id: str
    due_limit: int
    running_limit: int
    lead_seconds: float
    build: str | None = None
    """The desired build, if builds are to be looked at too."""
    canary: str | None = None
    """The workflow that proves a new build."""
    first_runs: int = 0
    """How many runs of the desired build are judged."""


def build_id(value: object) -> str:
    """What a worker can call its build: a label of a metric, a part of a status."""
    if not isinstance(value, str) or not BUILD_ID.fullmatch(value):
        raise UnusableAnswer
    return value


def workflow_names(text: object) -> tuple[str, ...]:
    """Workflows and their versions, from JSON text, of which a few are told to people."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UnusableAnswer
    names = (name if _WORKFLOW.fullmatch(name) else _NOT_SHOWN for name in found[:_MOST_NAMES])
    return tuple(sorted(set(names)))


def new_runs(row: Any, question: Question, served: Any = None) -> NewRuns:
    """What every row of `observe_builds` says of the namespace, less what nobody serves."""
    if served is not None:
        due = count(served["new_due"])
        return NewRuns(due, seconds(served["oldest_new_age"]), due >= question.due_limit)
    due = count(row["new_due"])
    saturated = due >= question.due_limit or bool(row["is_cut"])
    return NewRuns(due, seconds(row["oldest_new_age"]), saturated)


def build_view(row: Any, question: Question) -> BuildView:
    """A row of `observe_builds`."""
    wake, due, running = row["next_wake_seconds"], count(row["due"]), count(row["running"])
    return BuildView(
        share=count(row["share"]),
        is_main=bool(row["is_main"]),
        is_promoted=bool(row["is_promoted"]),
        is_held=bool(row["is_held"]),
        seconds_since_promotion=seconds(row["seconds_since_promotion"]),
        due=due,
        oldest_due_age=seconds(row["oldest_due_age"]),
        waking=count(row["waking"]),
        running=running,
        next_wake_seconds=None if wake is None else seconds(wake),
        canary=None if row["canary"] is None else str(row["canary"]),
        canary_age=seconds(row["canary_age"]),
        ended=count(row["ended"]),
        failed=count(row["failed"]),
        saturated=due >= question.due_limit or running >= question.running_limit,
    )


def observation(
    row: Any,
    question: Question,
    now: datetime,
    serial: int,
    builds: Mapping[str, BuildView] | None = None,
    new: NewRuns | None = None,
    served: Any = None,
    unserved_names: tuple[str, ...] = (),
) -> Observation:
    """A row of `observe_runs`, and that of `observe_served` where workers said what they serve."""
    mean_age, next_wake = row["mean_running_age"], row["next_wake_seconds"]
    waits = row if served is None else served
    due, running = count(waits["due"]), count(row["running"])
    unserved = max(0, count(row["due"]) - due)
    demand = Demand(
        due=due,
        oldest_due_age=seconds(waits["oldest_due_age"]),
        unserved=unserved,
        oldest_unserved_age=seconds(row["oldest_due_age"]) if unserved else 0.0,
        unserved_names=unserved_names if unserved else (),
        running=running,
        saturated=due >= question.due_limit or running >= question.running_limit,
        waking=count(waits["waking"]),
        # Runs in progress are on average half done, or more where durations vary.
        service_seconds=None if mean_age is None else 2 * seconds(mean_age),
    )
    wake = None if next_wake is None else seconds(next_wake)
    return Observation(demand, now, serial, counts(row["by_pod"]), wake, builds, new)


def counts(text: str) -> dict[str, int]:
    """Numbers by name, from JSON text."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise UnusableAnswer from None
    if not isinstance(found, dict):
        raise UnusableAnswer
    return {name: count(value) for name, value in found.items()}


def count(value: object) -> int:
    """A number of rows."""
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise UnusableAnswer
    return value


def seconds(value: object) -> float:
    """A length of time; 0 for one that is negative."""
    if not isinstance(value, float) or not math.isfinite(value):
        raise UnusableAnswer
    return max(0.0, value)
