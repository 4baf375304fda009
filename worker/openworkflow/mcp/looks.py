"""The tools that look: what they show is what pages of the dashboard show, cut for a model."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from openworkflow.backend.board import StepRow
from openworkflow.core.explanation import Explanation
from openworkflow.core.failure import Failure
from openworkflow.core.filters import FIELDS
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.mcp.answers import BRIEF, LONGEST, NAME, answer, brief, first, value
from openworkflow.web import words
from openworkflow.web.pages import failures, fleet, limits, overview, run, runs, schedules
from openworkflow.web.site import Place

STEPS = 40
"""Attempts of a run in one answer."""
CHILDREN = 20
MOST = 100
"""Workflows, builds, schedules or limits in one answer."""
GROUPS = 30
"""Groups of errors in one answer."""

Where = Annotated[
    str,
    Field(
        description="A filter, such as: status:failed workflow:order tag.customer:acme "
        f'error~"timeout" started>2h. Fields: {", ".join(FIELDS)}, tag.NAME, input.PATH, '
        "output.PATH. Empty for all runs."
    ),
]
RunId = Annotated[UUID, Field(description="The id of a run, as list_runs has it.")]
Limit = Annotated[int, Field(ge=1, le=50)]


class Looks:
    """The tools of one namespace that change nothing."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def tools(self) -> tuple[Callable[..., Awaitable[str]], ...]:
        """Each with a docstring for the model."""
        return (
            self.overview,
            self.list_runs,
            self.explain_run,
            self.show_run,
            self.list_errors,
            self.fleet,
            self.list_schedules,
            self.list_limits,
        )

    async def overview(self) -> str:
        """Runs by where they stand, the newest runs of each workflow summed up, and pauses."""
        found = await overview.load(self._place, {})
        recent = [
            {
                "workflow": brief(each.workflow, NAME),
                "newest_runs": each.runs,
                "since": each.since,
                **{name: getattr(each, name) for name in ("succeeded", "failed", "canceled")},
                "not_ended": each.open,
                "median_seconds": each.seconds and each.seconds[0],
            }
            for each in found["recent"]
        ]
        return answer(
            {
                "namespace": self._place.namespace,
                "now": await self._place.backend.now(),
                "runs": found["counts"],
                "counted_up_to": found["most"],
                **first("workflows", recent, MOST),
                **first("pauses", found["pauses"], MOST),
            }
        )

    async def list_runs(
        self,
        where: Where = "",
        limit: Limit = 20,
        after: Annotated[
            str | None, Field(description="`next` of the page before, to go on there.")
        ] = None,
    ) -> str:
        """List runs of a filter, newest first, with where each of them stands."""
        page, narrowed = await runs.page_of(self._place, where.strip(), after or None, limit)
        states = await runs.states_of(self._place, page)
        told = [self._line(each, states.get(each.id)) for each in page.runs]
        only = None if narrowed is None else f"only of {narrowed}: the filter took too long"
        return answer({"runs": told, "next": page.next_cursor, "narrowed": only})

    async def explain_run(self, run_id: RunId) -> str:
        """Say why a run is not done, or how it ended: in a sentence, and what it waits for."""
        return answer(self._explained(await self._place.ow.explain(run_id)))

    async def show_run(
        self,
        run_id: RunId,
        before: Annotated[
            str | None, Field(description="`earlier` of an answer, for the attempts before those.")
        ] = None,
    ) -> str:
        """Show a run: why it is not done, its newest step attempts, error, input and output."""
        place = self._place
        shown, board = place.site.shown, place.backend.board
        found = await place.ow.get_workflow_run(run_id)
        steps, more = await board.steps(run_id, STEPS, before or None)
        told = await place.ow.progress(run_id)
        is_parent = any(step.kind in ("child", "child-start", "map") for step in steps)
        return answer(
            {
                **self._line(found, None),
                "explanation": self._explained(await place.ow.explain(run_id)),
                "status_it_set": value(shown("status", told.status)),
                "errors": self._errors(found.error),
                "input": value(shown("input", found.input)),
                "output": value(shown("output", found.output)),
                "attempts_of_steps": [
                    self._step(await run.plain_step(place.ow, step)) for step in steps
                ],
                "earlier": more,
                "children": await board.children(run_id, CHILDREN) if is_parent else None,
                **self._facts(found),
                "can_be": sorted(run.actions(found.status, bool(found.pause))),
            }
        )

    async def list_errors(self) -> str:
        """Group the newest failed runs by what went wrong and where; each with one of them."""
        found = await failures.load(self._place, {})
        groups = [
            {
                "runs": group.runs,
                "type": brief(group.type, NAME),
                "workflow": brief(group.workflow, NAME),
                "place": brief(group.frame, NAME),
                "message": brief(self._place.site.shown("message", group.message)),
                "first": group.first,
                "last": group.last,
                "newest_run": group.newest.id,
                "where": group.where,
            }
            for group in found["groups"]
        ]
        return answer(
            {"failed_runs_looked_at": found["looked_at"], **first("groups", groups, GROUPS)}
        )

    async def fleet(self) -> str:
        """Builds of workers with the runs that are bound to them, what is served, and pauses."""
        found = await fleet.load(self._place, {})
        served = [
            {"workflow": brief(name, NAME), "version": version or None}
            for name, version in found["served"].versions
        ]
        return answer(
            {
                **first("builds", found["builds"], MOST),
                **first("served", served, 2 * MOST),
                **first("pauses", found["pauses"], MOST),
            }
        )

    async def list_schedules(self) -> str:
        """Schedules: when each fires next, and what became of the last occurrences."""
        found = await schedules.load(self._place, {})
        told = [
            {
                "name": brief(each.name, NAME),
                "workflow": brief(each.workflow_name, NAME),
                "cron": each.cron,
                "time_zone": each.time_zone,
                "next": [] if each.stopped else found["upcoming"][each.name][:2],
                "last": each.last_at,
                "last_run": each.last_run_id,
                **{name: getattr(each, name) for name in ("begun", "skipped", "missed")},
                "paused_since": each.paused_at,
                "pause_reason": each.pause_reason,
                "retired_since": each.retired_at,
            }
            for each in found["schedules"]
        ]
        return answer(first("schedules", told, MOST))

    async def list_limits(self) -> str:
        """Limits: how much of each is in use, and how many runs wait for it."""
        found = await limits.load(self._place, {})
        return answer({"now": found["now"], **first("limits", found["limits"], MOST)})

    def _line(self, found: WorkflowRun, state: str | None) -> dict[str, Any]:
        error = None if found.error is None else self._place.site.shown("error", found.error)
        return {
            "id": found.id,
            "workflow": brief(found.workflow_name, NAME),
            "version": found.version,
            "status": found.status,
            "stands": state,
            "created": found.created_at,
            "started": found.started_at,
            "ended": found.completed_at,
            "error": None if error is None else brief(Failure.from_object(error).summary),
            "tags": found.tags and value(found.tags, BRIEF),
        }

    def _explained(self, told: Explanation) -> dict[str, Any]:
        waits = [
            {"kind": each.kind, "name": brief(each.name, NAME), "since": each.since}
            | {"until": each.until, "attempt": each.attempt, "child": each.child}
            for each in told.waits
        ]
        return {
            "run": told.run_id,
            "status": told.status,
            "reason": told.reason,
            "sentence": words.cut(
                str(self._place.site.shown("explanation", told.sentence)), LONGEST
            ),
            "since": told.since,
            "until": told.until,
            **first("waits", waits, CHILDREN),
        }

    def _errors(self, error: Any) -> list[dict[str, str]] | None:
        """The error of a run and its causes; of the first the traceback's end."""
        if error is None:
            return None
        told = run.failures(self._place.site.shown("error", error))
        found = [{"type": each.type, "message": brief(each.message, LONGEST)} for each in told]
        if told[0].traceback:
            found[0]["traceback"] = told[0].traceback[-LONGEST:]
        return found

    def _step(self, step: StepRow) -> dict[str, Any]:
        error = None if step.error is None else self._place.site.shown("error", step.error)
        result = None if step.output is None else run.result_of(self._place.site, step)
        return {
            "step": brief(step.step_name, NAME),
            "kind": step.kind,
            "status": "discarded" if step.claim_no < 0 else step.status,
            "attempt": step.attempt if step.attempt > 1 else None,
            "began": step.created_at,
            "ended": step.completed_at,
            "until": step.resume_at,
            "error": None if error is None else brief(Failure.from_object(error).summary),
            "result": None if result is None else words.cut(result, BRIEF),
            "child": run.child_of(step) if step.kind in ("child", "child-start") else None,
        }

    def _facts(self, found: WorkflowRun) -> dict[str, Any]:
        names = ("worker_id", "build_id", "deadline_at", "schedule_name", "parent_run_id")
        told = {name: getattr(found, name) for name in (*names, "forked_from", "priority")}
        return {**told, "claims": found.claim_no, "crashes": found.crashes or None}
