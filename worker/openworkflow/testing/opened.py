"""What an environment has open while its test runs: connections, workers, and its timeline."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from openworkflow.backend.backend import BackendPostgres
from openworkflow.client.client import OpenWorkflow
from openworkflow.core.errors import OpenWorkflowError
from openworkflow.core.shown import shown
from openworkflow.testing.clock import Clock
from openworkflow.testing.crew import Crew
from openworkflow.testing.plans import Plans, nearest
from openworkflow.testing.runs import Run
from openworkflow.testing.server import APPLICATION
from openworkflow.testing.timeline import Stuck, Timeline


class NeverEnds(AssertionError):
    """A test waits for what will not happen; the message says why the run is not done."""


@dataclass(frozen=True, slots=True)
class Opened:
    """All of it; `close` takes it down."""

    ow: OpenWorkflow
    crew: Crew
    timeline: Timeline
    _stack: AsyncExitStack

    @classmethod
    async def open(cls, url: str, plans: Plans, options: Mapping[str, Any]) -> "Opened":
        """Connect. Raises BackendError."""
        async with AsyncExitStack() as stack:
            backend = await BackendPostgres.connect(url, application_name=APPLICATION)
            stack.push_async_callback(backend.stop)
            ow = OpenWorkflow(backend, codec=options.get("codec"))
            stack.push_async_callback(ow.stop)
            clock = await Clock.open(url)
            stack.push_async_callback(clock.close)
            crew = Crew(backend, plans, partial(Clock.open, url), **options)
            stack.push_async_callback(crew.stop)
            timeline = Timeline(clock, crew, backend.families.cancel_orphans)
            return cls(ow, crew, timeline, stack.pop_all())
        raise AssertionError

    async def close(self) -> None:
        """Stop the workers and disconnect."""
        await self._stack.aclose()


async def why_not(opened: Opened, run: Run[Any], stuck: Stuck) -> str:
    """Why a run does not end, as one line for whoever wrote the test."""
    await run.refresh()
    try:
        reason = (await opened.ow.explain(run.id)).sentence
    except OpenWorkflowError as error:
        reason = str(error)
    unserved = sorted({key[0] for key in stuck.moment.due if not opened.crew.serves(key)})
    hint = f"; nobody serves {', '.join(unserved)}: await env.serve(...)" if unserved else ""
    hint += _mistaken(*await opened.timeline.signals(run.id))
    what = f"the run of {run.workflow!r} does not end"
    return f"{what}: {reason} ({stuck}){hint}; it is {shown(run, 1000)}"


def _mistaken(awaited: list[str], sent: list[str]) -> str:
    """What is to be said of signals that were sent, and are not those that the run waits for."""
    told = []
    for name in sent:
        if (near := nearest(name, awaited)) is not None and near != name:
            told.append(f"{name!r}, did you mean {near!r}?")
    return f"; a signal was sent that it does not wait for: {', '.join(told)}" if told else ""
