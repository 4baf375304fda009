"""The schedules that the code of a worker's workflows declares, and how they are kept.

No worker is in charge: each says the same again and again, and whoever comes first writes it.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from openworkflow.backend.schedules import Schedules
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.cron import Cron
from openworkflow.core.envelope import read_envelope
from openworkflow.core.errors import (
    BackendError,
    CodecError,
    ConfigurationError,
    InputValidationError,
    PayloadUnreadable,
)
from openworkflow.core.schedule import NewSchedule, Schedule, Source
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.troubles import Troubles

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 60.0
"""How soon what was declared, or undone by an older build, is as the code has it; and how soon a
schedule has a next run again whose one is gone, or a queue its turn that nobody is left to give."""
ANSWER_SECONDS = 30.0


def declared(workflows: Iterable[Workflow[Any, Any]], payload_limit: int) -> list[NewSchedule]:
    """The schedules of these workflows.

    Raises ConfigurationError for two of one name, and for an input that does not fit its workflow.
    """
    found: dict[str, NewSchedule] = {}
    for workflow in workflows:
        for cron in workflow.schedules:
            wish = NewSchedule.of(
                cron,
                Source.CODE,
                (workflow.name, workflow.version),
                _input(workflow, cron, payload_limit),
            )
            if (other := found.get(wish.name)) is not None:
                raise ConfigurationError(
                    f"workflows {other.workflow_name!r} and {wish.workflow_name!r} both declare a "
                    f"schedule {wish.name!r}; give one another name: Cron(..., name=...)"
                )
            found[wish.name] = wish
    return list(found.values())


class SealedWishes:
    """Schedules that code declares, as they are to be stored.

    An input that is encoded differs each time. One that is stored already, by the same codecs and
    keys, stays as it is, so that a schedule is written only when it changes or the keys do.
    """

    def __init__(self, wishes: Sequence[NewSchedule], payloads: Payloads) -> None:
        self._wishes, self._payloads = wishes, payloads
        self._sealed: dict[str, str | None] = {}

    async def like(self, schedules: Schedules) -> Sequence[NewSchedule]:
        """The wishes; raises BackendError and CodecError."""
        if not self._payloads.seals or not self._wishes:
            return self._wishes
        there = {each.name: each for each in await schedules.find([w.name for w in self._wishes])}
        return [await self._wish(wish, there.get(wish.name)) for wish in self._wishes]

    async def _wish(self, wish: NewSchedule, there: Schedule | None) -> NewSchedule:
        at = "input", wish.workflow_name
        if wish.name not in self._sealed:
            self._sealed[wish.name] = await self._payloads.seal(wish.input, *at)
        sealed = self._sealed[wish.name]
        if there is not None and there.workflow_name == wish.workflow_name:
            try:
                plain = await self._payloads.open(there.input, *at)
            except PayloadUnreadable:  # by a key that is gone: it is written anew
                return replace(wish, input=sealed)
            same = replace(wish, input=plain).matches(replace(there, input=wish.input))
            if same and _by(there.input) == _by(sealed):
                sealed = self._sealed[wish.name] = there.input
        return replace(wish, input=sealed)


def _by(text: str | None) -> list[str]:
    """Which codecs and keys have encoded it; of what is kept in a store each has its own name."""
    envelope = read_envelope(text)
    return [] if envelope is None else [each for each in envelope.codecs if "/" not in each]


async def keep_schedules(
    schedules: Schedules,
    wishes: SealedWishes,
    served: Sequence[tuple[str, str]],
    build_id: str | None,
    metrics: Metrics,
) -> None:
    """Have the schedules be as the code says, and go on, until canceled. Nothing else waits."""
    told: set[str] = set()
    troubles = Troubles(logger, "could not look after the schedules")
    foreign: list[str]
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                foreign = await schedules.declare(await wishes.like(schedules), served, build_id)
                await schedules.occurrences.mend()
                late, _ = await schedules.occurrences.late()
                metrics.schedules_late(late)
            troubles.succeeded()
        except (BackendError, CodecError, TimeoutError) as error:
            troubles.failed(error)
        except Exception:
            logger.exception("could not look after the schedules")
        else:
            for name in set(foreign) - told:
                logger.error(
                    "schedule %r is declared here, and by somebody else, who keeps it: delete that "
                    "one (openworkflow schedules delete), or give this one another name",
                    name,
                )
            told.update(foreign)
        await asyncio.sleep(REPEAT_SECONDS * random.uniform(0.8, 1.0))


def _input(workflow: Workflow[Any, Any], cron: Cron, payload_limit: int) -> str | None:
    """The input as JSON text."""
    if not workflow.takes_input:
        if cron.input is not None:
            raise ConfigurationError(
                f"workflow {workflow.name!r} takes no input, and its schedule gives one"
            )
        return None
    codec = workflow.input_codec
    try:
        return codec.encode(codec.validate(cron.input, "input"), "input", payload_limit)
    except InputValidationError as error:
        raise ConfigurationError(
            f"the schedule of workflow {workflow.name!r} starts it with the input "
            f"{shown(cron.input)}, which does not fit ({error}); give one: "
            "Cron(..., input=...), or let the workflow accept None"
        ) from None
