"""Errors: the newest failed runs, grouped by what went wrong and where."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openworkflow.backend.board import FAILURES, FailedRun
from openworkflow.core.filters import quoted
from openworkflow.web.site import Place

MOST = 100
"""Groups on the page."""
MOST_NAMED = 150
"""Runs of a group that a filter names: its URL is no longer than proxies take."""
BARS = 24
_FRAME = re.compile(r'File "([^"]+)", line \d+, in (.+)')
_FOLDER = re.compile(r".*[/\\]")
_OURS = re.compile(r"[/\\]openworkflow[/\\]")
_STEP = re.compile(r"^in step (.+), attempt \d+$", re.MULTILINE)
_VARIABLE = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\d+")


@dataclass(frozen=True, slots=True)
class Group:
    """Failed runs that failed alike."""

    type: str
    workflow: str
    frame: str
    """Where: step, function and file; what the message says where that is not known."""
    message: str
    """Message of the newest."""
    runs: int
    first: datetime
    last: datetime
    newest: FailedRun
    where: str
    """A filter that means runs of their type and workflow, in which other groups may be."""
    these: str
    """A filter that means these runs; where there are other groups, the newest of them."""
    named: int
    """How many that filter names; 0 where it means all."""
    bars: list[int]
    """How many failed in each part of the time that all groups cover, in percent of the most."""


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    found = await place.backend.board.failures()
    groups = grouped(found)
    return {
        "groups": groups[:MOST],
        "left": len(groups) - MOST,
        "looked_at": len(found),
        "is_cut": len(found) == FAILURES,
        "since": min((_at(run) for run in found), default=None),
    }


def grouped(found: Iterable[FailedRun]) -> list[Group]:
    """Groups of failures, those with the most runs first."""
    groups: dict[tuple[str, str, str], list[FailedRun]] = {}
    for run in found:
        groups.setdefault(_fingerprint(run), []).append(run)
    times = [_at(run).timestamp() for runs in groups.values() for run in runs]
    start, span = min(times, default=0.0), (max(times, default=0.0) - min(times, default=0.0)) or 1
    alike = Counter((kind, workflow) for kind, workflow, _ in groups)
    made = []
    for (kind, workflow, frame), runs in groups.items():
        newest = max(runs, key=_at)
        where = f"status:failed workflow:{quoted(workflow)} error:{quoted(kind)}"
        ids = [str(run.id) for run in sorted(runs, key=_at, reverse=True)[:MOST_NAMED]]
        is_alone = alike[kind, workflow] == 1 and newest.type is not None
        counts = [0] * BARS
        for run in runs:
            counts[min(BARS - 1, int((_at(run).timestamp() - start) / span * BARS))] += 1
        made.append(
            Group(
                type=kind,
                workflow=workflow,
                frame=frame,
                message=newest.message or "",
                runs=len(runs),
                first=min(map(_at, runs)),
                last=_at(newest),
                newest=newest,
                where=where,
                these=where if is_alone else f"status:failed id:{','.join(ids)}",
                named=0 if is_alone else len(ids),
                bars=[round(100 * count / max(counts)) for count in counts],
            )
        )
    return sorted(made, key=lambda group: (-group.runs, group.type, group.workflow, group.frame))


def _fingerprint(run: FailedRun) -> tuple[str, str, str]:
    """The type, the workflow, and where: the step, and the innermost frame of the user's."""
    kind = (run.type or "unknown").rpartition(":")[2]
    steps, frames = _STEP.findall(run.traceback), _FRAME.findall(run.traceback)
    users = [frame for frame in frames if not _OURS.search(frame[0])] or frames
    where = [f"step {steps[-1]}"] if steps else []
    where += [f"{function} in {_FOLDER.sub('', file)}" for file, function in users[-1:]]
    told = " · ".join(where) or _VARIABLE.sub("…", (run.message or "")[:80])
    return kind, run.workflow_name, told


def _at(run: FailedRun) -> datetime:
    return run.failed_at or run.created_at
