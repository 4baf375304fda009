"""What an execution stores goes through the codecs of its worker, if it has some.

A codec that cannot encode a value is no fault of the run's: it is handed back, and what had not
been recorded is done again. A value that is too large is its fault, as it is without codecs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openworkflow.backend.records import EventWrite, Outgoing, ProgressWrite
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.errors import CodecError, PayloadTooLarge, Suspended
from openworkflow.core.failure import Failure
from openworkflow.engine.outcome import Completed, Continued, Failed, Outcome

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution


async def of_step(
    execution: "Execution", payloads: Payloads, output: str | None, key: str
) -> str | None:
    """The result of a step's function. Raises PayloadTooLarge; Suspended if it is handed back."""
    try:
        return await payloads.seal(output, "step", key)
    except CodecError as error:
        execution.interrupt(execution.defect(error))
        raise Suspended from error


async def of_wait(execution: "Execution", output: str | None, key: str) -> str | None:
    """What a wait has led to. Raises PayloadTooLarge and CodecError."""
    payloads = execution.services.payloads
    return output if payloads is None else await payloads.seal(output, "step", key)


async def of_signal(payloads: Payloads, made: Outgoing) -> Outgoing:
    """A signal that is to be sent. Raises PayloadTooLarge and CodecError."""
    return made._replace(payload=await payloads.seal(made.payload, "signal", made.name))


async def of_told(payloads: Payloads, rows: Sequence[Any]) -> list[Any]:
    """What a run tells, which has limits of its own. Raises CodecError."""
    sealed: list[Any] = []
    for row in rows:
        if isinstance(row, EventWrite):
            row = row._replace(
                value=await payloads.seal(row.value, "event", row.topic, limited=False)
            )
        elif isinstance(row, ProgressWrite):
            row = row._replace(status=await payloads.seal(row.status, "status", limited=False))
        sealed.append(row)
    return sealed


async def of_end(execution: "Execution", payloads: Payloads, outcome: Outcome) -> Outcome:
    """How an execution ends, with the result or the next input as they are to be stored."""
    try:
        match outcome:
            case Completed(output):
                return replace(outcome, output=await payloads.seal(output, "result"))
            case Continued(text):
                name = execution.workflow.name
                return replace(outcome, input=await payloads.seal(text, "input", name))
    except PayloadTooLarge as error:
        return Failed(Failure.from_exception(error))
    except CodecError as error:
        return execution.defect(error)
    return outcome
