"""Runs: those that a filter means, a page at a time."""

from collections.abc import Mapping
from typing import Any

from openworkflow.backend.backend import Page
from openworkflow.core.completing import completions
from openworkflow.core.errors import BackendError, ConfigurationError, Fault
from openworkflow.core.filters import parse_filter
from openworkflow.core.standing import word
from openworkflow.web.site import Place

LIMIT = 50
WITHIN = 2.0
"""Seconds that PostgreSQL may look for the runs of a filter."""
NARROWER = ("", "created<1d", "created<1h")
"""What is added to a filter that takes longer than that."""
TOO_SLOW = (
    "It takes too long to look for these, even among the runs of the last hour. Runs are found at "
    "once by workflow:, tag., id:, and status: of failed, pending or running; add one of them."
)
QUICK = (
    ("all", ""),
    ("running", "status:running"),
    ("pending", "status:pending"),
    ("failed", "status:failed"),
    ("succeeded", "status:succeeded"),
    ("canceled", "status:canceled"),
    ("paused", "paused:yes"),
)
"""Filters to click on."""


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load. A filter that cannot be read is told of in its place."""
    where, cursor = asked.get("where", "").strip(), asked.get("after") or None
    found: dict[str, Any] = {
        "where": where,
        "cursor": cursor,
        "quick": QUICK,
        "options": completions(where, {}),
        "page": Page([], None),
        "states": {},
        "complaint": None,
        "narrowed": None,
    }
    try:
        page, narrowed = await page_of(place, where, cursor)
    except ConfigurationError as error:
        return found | {"complaint": str(error)}
    except BackendError as error:
        if error.fault is not Fault.SIZE:
            raise
        return found | {"complaint": TOO_SLOW}
    return found | {"page": page, "narrowed": narrowed, "states": await states_of(place, page)}


async def options_of(place: Place, typed: str) -> list[str]:
    """Filters that what somebody types may be about to become."""
    newest, served = await place.backend.board.runs(LIMIT), await place.backend.control.served()
    seen: dict[str, dict[str, None]] = {}
    for name, _ in served.versions:
        seen.setdefault("workflow", {})[name] = None
    for run in newest.runs:
        had = {f"tag.{name}": tag for name, tag in (run.tags or {}).items()}
        had |= {"workflow": run.workflow_name, "version": run.version or ""}
        had |= {"worker": run.worker_id or "", "build": run.build_id or ""}
        for field, value in had.items():
            if value:
                seen.setdefault(field, {})[value] = None
    return completions(typed, seen)


async def page_of(
    place: Place, where: str, cursor: str | None, limit: int = LIMIT
) -> tuple[Page, str | None]:
    """A page without inputs and outputs, and what it was narrowed by, as all took too long."""
    if not where:
        return await place.backend.board.runs(limit, cursor), None
    for narrower in NARROWER:
        terms = parse_filter(f"{where} {narrower}")
        try:
            page = await place.backend.filtering.brief(terms, limit, cursor, WITHIN)
        except BackendError as error:
            if error.fault is not Fault.SIZE or narrower == NARROWER[-1]:
                raise
        else:
            return page, narrower or None
    raise AssertionError


async def states_of(place: Place, page: Page) -> dict[Any, str]:
    """In a word where each run of a page stands that has not ended."""
    open_ids = [run.id for run in page.runs if not run.status.finished]
    if not open_ids:
        return {}
    control = place.backend.control
    known, served = await control.standings(open_ids), await control.served()
    return {run.id: word(run, known.get(run.id), served) for run in page.runs}
