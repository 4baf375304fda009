"""A workflow that is held in its second step until a test lets it go on."""

from __future__ import annotations

import asyncio
from typing import Any

from openworkflow import Step, Workflow, workflow


class Holding:
    """Three steps, a, b and c; `calls` says which were called, and `hold` ends the second."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hold = asyncio.Event()

    @property
    def workflow(self) -> Workflow[Any, Any]:
        """The workflow, to be served and started."""
        calls = self.calls

        async def second() -> None:
            calls.append("b")
            await self.hold.wait()

        @workflow
        async def holding(step: Step) -> None:
            await step.run("a", lambda: calls.append("a"))
            await step.run("b", second)
            await step.run("c", lambda: calls.append("c"))

        return holding
