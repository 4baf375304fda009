"""What a run keeps of a history when it goes on from one of its steps. Pure.

What is kept is a beginning of the history, in the order in which a replay hands it out: by the same
code that replays it. So the kept part is replayed exactly, and what came after is done anew.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine.history import History
from openworkflow.engine.keys import PATCHED


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows that stay, and what becomes of their results."""

    rows: tuple[UUID, ...]
    overridden: Mapping[UUID, str | None]
    """Rows with another result: JSON text."""
    from_step: str | None
    """The first step that is done anew; None if nothing of the history is."""


def keep(
    steps: Iterable[RecordedStep],
    from_step: str | None,
    results: Mapping[str, str | None] | None = None,
) -> Kept:
    """Keep all that came before `from_step`, by default the last recorded step.

    `results` are given instead of those that were recorded, as JSON text, by step; with these
    and no `from_step` the last of them is the last that is kept. Raises ConfigurationError for a
    step that was not recorded, and for a result of one that is not kept.
    """
    given = dict(results or {})
    rows = tuple(steps)
    history, events = _events(rows)
    for name in (*([from_step] if from_step is not None else ()), *given):
        _check(name, history)
    place = {row.step_name: number for number, row in enumerate(events)}
    if from_step is not None:
        cut = place.get(from_step, len(events))
    elif given:
        cut = max(place.get(name, -1) for name in given) + 1
    else:
        cut = max(0, len(events) - 1)
    kept = {row.step_name: row for row in events[:cut]}
    for name in given:
        _check_result(name, kept, from_step)
    patches = [row.id for row in rows if row.step_name.startswith(PATCHED)]
    return Kept(
        (*(row.id for row in kept.values()), *patches),
        {kept[name].id: value for name, value in given.items()},
        events[cut].step_name if cut < len(events) else from_step,
    )


def _events(rows: tuple[RecordedStep, ...]) -> tuple[History, list[RecordedStep]]:
    """The history, and its events in the order in which a function that asks for all gets them."""
    history = History(rows)
    if history.unreadable is not None:
        raise ConfigurationError(f"the history cannot be forked: {history.unreadable}")
    for key in history.recorded:
        history.keys.requested[key] = None
    events = []
    while (event := history.next_event()) is not None:
        events.append(event)
    return history, events


def _check(name: str, history: History) -> None:
    known = [key for key in history.recorded if not key.startswith(PATCHED)]
    if name in known:
        return
    if not known:
        raise ConfigurationError(
            f"no step {shown(name)} was recorded: the run has recorded no result of a step so far"
        )
    near = difflib.get_close_matches(str(name), known, 1) or known[-1:]
    raise ConfigurationError(f"no step {shown(name)} was recorded; there is {near[0]!r}")


def _check_result(name: str, kept: Mapping[str, RecordedStep], from_step: str | None) -> None:
    if name not in kept:
        point = "which has no result so far" if from_step is None else f"from {from_step!r} on"
        raise ConfigurationError(
            f"the result of step {name!r} would not be used: what is kept ends before it, {point}; "
            "name a later from_step"
        )
    if kept[name].kind == StepKind.SLEEP:
        raise ConfigurationError(f"step {name!r} is a sleep, and has no result")
    if kept[name].kind == StepKind.CHILD_START:
        raise ConfigurationError(
            f"step {name!r} has started a run, and answers with its handle; what the run came to "
            f"is another step, such as 'result:{name}'"
        )
