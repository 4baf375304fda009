"""What each page shows. A page loads what its template is given, and changes nothing."""

from dataclasses import dataclass

from openworkflow.web.pages import compare, failures, fleet, limits, overview, run, runs, schedules
from openworkflow.web.site import Load


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a namespace."""

    name: str
    """Name of its template, and of its place in the menu."""
    path: str
    title: str
    load: Load


PAGES = (
    Page("overview", "", "Overview", overview.load),
    Page("runs", "/runs", "Runs", runs.load),
    Page("run", "/runs/{run_id:uuid}", "Run", run.load),
    Page("compare", "/runs/{run_id:uuid}/compare", "Compare", compare.load),
    Page("failures", "/errors", "Errors", failures.load),
    Page("schedules", "/schedules", "Schedules", schedules.load),
    Page("limits", "/limits", "Limits", limits.load),
    Page("fleet", "/fleet", "Fleet", fleet.load),
)
