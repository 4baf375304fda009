"""The limits of a worker's workflows: kept as its code says, and named by runs that do not yet.

No worker is in charge: each says the same again and again. A run names its limits when it is
started; one that was started by its workflow's name alone, or by a schedule, is given them by the
first worker that claims it.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from openworkflow.core.errors import BackendError, ConfigurationError, OpenWorkflowError
from openworkflow.core.failure import Failure
from openworkflow.core.limits import LimitRule
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.workflow import Workflow
from openworkflow.engine.execution import Execution
from openworkflow.engine.outcome import Failed
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.troubles import Troubles
from openworkflow.worker.ends import Adopt

if TYPE_CHECKING:
    from openworkflow.backend.limits import LimitTable

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 60.0
ANSWER_SECONDS = 30.0


def declared_limits(workflows: Iterable[Workflow[Any, Any]]) -> list[LimitRule]:
    """The limits of these workflows. Raises ConfigurationError where two do not agree on one."""
    found: dict[str, LimitRule] = {}
    for workflow in workflows:
        for rule in workflow.limits.rules:
            if found.setdefault(rule.name, rule) != rule:
                raise ConfigurationError(
                    f"two workflows, or versions of one, do not agree on limit {rule.name!r}; give "
                    "one another name: Limit(..., name=...)"
                )
    return list(found.values())


async def keep_limits(
    table: "LimitTable",
    rules: Sequence[LimitRule],
    served: Iterable[tuple[str, str]],
    metrics: Metrics,
) -> None:
    """Have the limits be as the code says, and go on, until canceled. Nothing else waits."""
    names = sorted({name for name, _ in served})
    troubles = Troubles(logger, "could not look after the limits")
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await table.declare(rules, names)
                states = await table.list() if rules or table.is_used else []
                metrics.limits({each.name: (each.used, each.waiting) for each in states})
            troubles.succeeded()
        except (BackendError, TimeoutError) as error:
            troubles.failed(error)
        except Exception:
            logger.exception("could not look after the limits")
        await asyncio.sleep(REPEAT_SECONDS * random.uniform(0.8, 1.0))


def limits_to_take(execution: Execution) -> str | None:
    """What a run that names no limits has to wait for first; None if it may begin.

    One whose limits cannot be told, since the function of a key raises, begins and fails of that.
    """
    try:
        return limits_to_name(execution.workflow, execution.claim)
    except Exception as error:
        execution.interrupt(Failed(Failure.from_exception(error)))
        return None


def adopter(table: "LimitTable", rules: Sequence[LimitRule], worker_id: str) -> Adopt:
    """What hands back a run so that it waits for limits, which are stored by then."""

    async def adopt(run_id: UUID, claim_no: int, limits: str) -> None:
        await table.ensure(rules)
        await table.adopt(run_id, claim_no, limits, worker_id)

    return adopt


def limits_to_name(workflow: Workflow[Any, Any], run: ClaimedRun) -> str | None:
    """What a run that names no limits should name; None if it is under none.

    Raises ConfigurationError where the function of a key raises. An input that does not fit is none
    of theirs: the run fails of it when it is executed.
    """
    if run.names_limits or not workflow.limits:
        return None
    value = None
    if workflow.takes_input:
        try:
            value = workflow.input_codec.decode(run.input)
        except OpenWorkflowError:
            return None
    return workflow.limits.of(value)
