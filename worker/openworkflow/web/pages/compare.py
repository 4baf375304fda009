"""Compare: how a run differs from another, in what went in, in its steps, and in what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any
from uuid import UUID

from openworkflow.backend.board import StepRow
from openworkflow.core.envelope import described, described_start
from openworkflow.core.errors import BackendError, Fault, RunNotFound
from openworkflow.core.failure import Failure
from openworkflow.core.filters import quoted
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.web.pages.run import STEPS, plain_step, result_of
from openworkflow.web.pages.runs import page_of
from openworkflow.web.site import Place
from openworkflow.web.timeline import status_told
from openworkflow.web.words import between, short, value

LINES = 500
"""Lines of a value that are compared."""
AROUND = 3
"""Lines that are shown around what differs."""
UNSURE = "They are encoded, so that it is not known whether they are the same."
FURTHER = f"They differ, but further on than the first {LINES} lines that are compared here."


@dataclass(frozen=True, slots=True)
class Side:
    """A step of one of the two, by its newest attempt."""

    status: str
    took: str
    attempt: int
    result: str
    stored: str | None = None
    """All of the result as it is stored, if all of it was read."""
    is_whole: bool = True
    """Whether `result` is all that it came to, in the clear."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of either run, or of both."""

    name: str
    left: Side | None
    right: Side | None
    difference: list[tuple[str, str]]
    """What differs in the results."""

    @property
    def differs(self) -> bool:
        """Whether they came to something else; how long it took is no matter."""
        mine, others = self.left, self.right
        if mine is None or others is None:
            return True
        return (mine.status, mine.result) != (others.status, others.result)

    @property
    def is_sure(self) -> bool:
        """Whether what does not differ here is the same beyond what is read of it."""
        mine, others = self.left, self.right
        if mine is None or others is None or (mine.is_whole and others.is_whole):
            return True
        return mine.stored is not None and mine.stored == others.stored


@dataclass(frozen=True, slots=True)
class Text:
    """A part of both runs that is compared line by line."""

    name: str
    difference: list[tuple[str, str]]
    told: str
    """What is said where no line differs."""


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load. Raises RunNotFound for the run itself; what is wrong with the other is told."""
    run = await place.ow.get_workflow_run(UUID(asked["run_id"]))
    found: dict[str, Any] = {"run": run, "other": None, "asked_for": asked.get("with", "")}
    found |= {"title": f"{short(run.workflow_name, 40)} compared · {place.namespace}"}
    other, found["complaint"] = await _other(place, run, found["asked_for"].strip())
    if other is None:
        return found | {"is_final": True}
    steps = [await _steps(place, each) for each in (other, run)]
    mine, others = (_texts(place, each) for each in (other, run))
    return found | {
        "other": other,
        "texts": [_text(name, mine[name], others[name]) for name in mine],
        "pairs": pairs(*(sides for sides, _ in steps)),
        "is_cut": [more for _, more in steps],
        "is_final": run.status == other.status == RunStatus.SUCCEEDED,
    }


def difference(before: str, after: str) -> list[tuple[str, str]]:
    """What differs between two texts: "+", "-" or " ", and the line; nothing where nothing does."""
    mine, others = before.split("\n")[:LINES], after.split("\n")[:LINES]
    found = list(unified_diff(mine, others, n=AROUND, lineterm=""))[2:]
    return [("…", "") if line.startswith("@@") else (line[:1], line[1:]) for line in found]


def pairs(left: Mapping[str, Side], right: Mapping[str, Side]) -> list[Pair]:
    """The steps of both, each beside that of its name, in the order of the second."""
    found = []
    for name in dict.fromkeys((*right, *left)):
        mine, others = left.get(name), right.get(name)
        told = [each.result if each else "" for each in (mine, others)]
        found.append(Pair(name, mine, others, difference(*told)))
    return found


def _text(name: str, before: tuple[str, Any], after: tuple[str, Any]) -> Text:
    """How a part of the one run differs from that of the other, as far as they can be read."""
    told = "The same."
    if before[1] != after[1]:
        is_encoded = described(before[1]) is not None or described(after[1]) is not None
        told = UNSURE if is_encoded else FURTHER
    return Text(name, difference(before[0], after[0]), told)


async def _other(place: Place, run: WorkflowRun, wanted: str) -> tuple[WorkflowRun | None, str]:
    """The run to compare with: the one asked for, that it is a fork of, or the last good one."""
    try:
        if (named := UUID(wanted) if wanted else run.forked_from) is not None:
            return await place.ow.get_workflow_run(named), ""
    except ValueError:
        return None, f"{short(wanted, 60)} is no id of a run."
    except RunNotFound:
        return None, "There is no such run here to compare it with."
    where = f"status:succeeded workflow:{quoted(run.workflow_name)}"
    try:
        page, _ = await page_of(place, where, None, 2)
    except BackendError as error:
        if error.fault is not Fault.SIZE:
            raise
        return (
            None,
            "It takes too long to look for one that succeeded: say which to compare it with.",
        )
    for each in page.runs:
        if each.id != run.id:
            return await place.ow.get_workflow_run(each.id), ""
    return None, "No other run of this workflow has succeeded: say which to compare it with."


async def _steps(place: Place, run: WorkflowRun) -> tuple[dict[str, Side], bool]:
    """The steps among the newest attempts of a run, and whether there are more."""
    rows, more = await place.backend.board.steps(run.id, STEPS)
    return {row.step_name: await _side(place, row) for row in rows}, more is not None


async def _side(place: Place, row: StepRow) -> Side:
    step, error = await plain_step(place.ow, row), row.error
    if error is not None:
        result = Failure.from_object(place.site.shown("error", error)).summary
    else:
        result = result_of(place.site, step)
    took, read = between(row.created_at, row.completed_at), row.output or ""
    stored = read if (row.output_length or 0) <= len(read) else None
    told = None if row.output is None else described_start(row.output)
    is_plain = told is None or not (step.output or "").startswith(told)
    is_whole = is_plain and (step.output_length or 0) <= len(step.output or "")
    return Side(status_told(row), took, row.attempt, result, stored, is_whole)


def _texts(place: Place, run: WorkflowRun) -> dict[str, tuple[str, Any]]:
    """What is compared of a run, by what it is called: as text, and as it is."""
    shown = place.site.shown
    error = "" if run.error is None else Failure.from_object(shown("error", run.error)).summary
    facts: Sequence[tuple[str, Any]] = (
        ("status", run.status),
        ("version", run.version),
        ("build", run.build_id),
        ("error", error),
    )
    told = "\n".join(f"{name}: {fact}" for name, fact in facts if fact)
    output = shown("output", run.output) if run.status is RunStatus.SUCCEEDED else None
    given = shown("input", run.input)
    return {
        "Facts": (told, told),
        "Input": (value(given), given),
        "Output": ("" if output is None else value(output), output),
    }
