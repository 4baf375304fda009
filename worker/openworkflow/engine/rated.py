"""Steps at a rate: each attempt has its turn, and the run waits for that as for any time.

A short wait rests in memory, a long one parks the run. The turn is in the database, under the run
and the step, so that whoever goes on with the run finds it, and nothing is held meanwhile.
"""

import asyncio
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from openworkflow.core.duration import Duration
from openworkflow.core.errors import BackendError
from openworkflow.core.limits import StepRate, limit_name, pause_until
from openworkflow.engine.operations.operation import Operation

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""Until the database is asked again that did not answer."""
MOST_SECONDS = 30.0
"""Until a turn is asked for again that is waited for within a step."""


async def take_turn(operation: Operation, rate: StepRate, *, is_within: bool = False) -> None:
    """Wait until the step may be called. Raises Suspended if the run ends or is parked.

    With `is_within` for one of several items of a step that is being performed: the run cannot be
    parked, and the turn is asked for again meanwhile, since another rate may have moved it.
    """
    execution = operation.execution
    while True:
        if not is_within:
            await execution.gate(operation)
        try:
            at = await execution.services.take_turn(rate, execution.claim.id, operation.key)
        except BackendError as error:
            logger.warning("step %r waits, since its turn is not known: %s", operation.key, error)
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        execution.check_stopped()
        if at is None:
            return
        execution.waits("rate", operation.key, at)
        if is_within:
            left = (at - execution.now()).total_seconds()
            await asyncio.sleep(min(max(left, 0), MOST_SECONDS))
        else:
            await execution.agenda.wait(operation, at)


async def pause(execution: "Execution", name: str, until: datetime | Duration) -> None:
    """Let no step that names the limit be called until then, in any run."""
    await execution.services.pause_limit(limit_name(name), *pause_until(until))


def check_pause(name: Any, until: Any) -> None:
    """Refuse what cannot be stored. Raises ConfigurationError."""
    limit_name(name)
    pause_until(until)
