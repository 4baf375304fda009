"""The tools that do something about a run: actions of the dashboard, in its audit log."""

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from openworkflow.mcp.answers import answer
from openworkflow.mcp.looks import RunId
from openworkflow.web import actions
from openworkflow.web.site import Place


class Deeds:
    """The tools of one namespace that change runs."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def tools(self) -> tuple[Callable[..., Awaitable[str]], ...]:
        """Each with a docstring for the model."""
        return (
            self.retry_run,
            self.cancel_run,
            self.pause_run,
            self.resume_run,
            self.signal_run,
        )

    async def retry_run(
        self,
        run_id: RunId,
        from_step: Annotated[
            str | None, Field(description="A recorded step to go on from; not where it failed.")
        ] = None,
    ) -> str:
        """Start a failed or canceled run again, from the step that failed."""
        return await self._do(actions.retry, run_id, from_step=from_step or "")

    async def cancel_run(self, run_id: RunId) -> str:
        """Cancel a run that has not ended, once its steps that have an undo are undone."""
        return await self._do(actions.cancel, run_id)

    async def pause_run(
        self, run_id: RunId, reason: Annotated[str, Field(description="Shown to others.")] = ""
    ) -> str:
        """Hold a run back from its next claim on, until resume_run."""
        return await self._do(actions.pause, run_id, reason=reason or "by MCP")

    async def resume_run(self, run_id: RunId) -> str:
        """Let a paused run go on."""
        return await self._do(actions.resume, run_id)

    async def signal_run(
        self,
        run_id: RunId,
        name: Annotated[str, Field(description="The signal that the run waits for.")],
        value: Annotated[Any, Field(description="Any JSON value.")] = None,
    ) -> str:
        """Send a run a signal, which it takes once it waits for one of that name."""
        return await self._do(actions.signal, run_id, name=name, value=json.dumps(value))

    async def _do(self, act: actions.Act, run_id: UUID, **form: str) -> str:
        done = await actions.perform(self._place, act, {"run_id": run_id}, form)
        return answer({"run": run_id, "done": done.note})
