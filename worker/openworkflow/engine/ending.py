"""What the end of a workflow function means for its run."""

import inspect
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import (
    ConfigurationError,
    OpenWorkflowError,
    SerializationError,
    Stalled,
)
from openworkflow.core.failure import Failure
from openworkflow.core.shown import shown
from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine import whereabouts
from openworkflow.engine.operations.sleep import TimerOperation
from openworkflow.engine.outcome import (
    Completed,
    Continued,
    Failed,
    Outcome,
    Rescheduled,
    after_error,
)

if TYPE_CHECKING:
    from openworkflow.engine.execution import Execution

OTHER_THREADS = "thread"
"""The branch of what is asked for by threads that a plain function has started."""
SHOWN = 3
"""Names that a message lists."""


def decoded_input(execution: "Execution") -> tuple[Any, ...]:
    """The arguments of the function. Raises SerializationError for an input that does not fit."""
    workflow = execution.workflow
    if not workflow.takes_input:
        return ()
    try:
        return (workflow.input_codec.decode(execution.claim.input, "the input of the run"),)
    except SerializationError as error:
        raise SerializationError(
            f"{error}; start one with another input, or let the annotation accept this one"
        ) from None


def raised(execution: "Execution", error: BaseException, last_failed: str | None = None) -> Outcome:
    """An error has left the function; `last_failed` is the step whose error it had just got."""
    if forgotten := _forgotten(execution):
        with suppress(Exception):  # its own notes may be no list
            error.add_note(f"{listed(forgotten)} never ran: write `await` before the call")
    attempt = execution.claim.attempts + 1
    outcome = after_error(error, execution.workflow.retry, attempt)
    if isinstance(outcome, Rescheduled):
        again = execution.now() + timedelta(seconds=outcome.delay)
        if not execution.is_past_deadline(again):
            return outcome
        outcome = Failed(outcome.failure)
    if not outcome.steps and last_failed is not None:
        return Failed(outcome.failure, (last_failed,))
    return outcome


def returned(execution: "Execution", value: Any, alone: Iterable[str] = ()) -> Outcome:
    """The function has returned `value`, and left branches with these paths to themselves."""
    workflow = execution.workflow
    try:
        agenda, history = execution.agenda, execution.history
        if agenda.operations or agenda.unawaited or (history.recorded and history.unfinished):
            _check_complete(execution, alone)
        codec, limit = workflow.output_codec, execution.services.payload_limit
        return Completed(codec.encode(value, "result of workflow", limit, workflow.name))
    except OpenWorkflowError as error:
        return Failed(Failure.from_exception(error))


def continued(execution: "Execution", value: Any) -> Outcome:
    """The function begins afresh with this input. Raises ConfigurationError if it cannot yet."""
    text, history = _next_input(execution, value), execution.history
    unfinished = [
        operation.key
        for operation in execution.agenda.operations.values()
        if not isinstance(operation, TimerOperation)
    ]
    if unfinished:
        raise ConfigurationError(
            "the run cannot continue as new while steps are unfinished: "
            f"{listed(unfinished)}; await them first"
        )
    if history.recorded and history.unfinished and history.unasked() is not None:
        return Failed(Failure.from_exception(history.mismatch((), "continues as new")))
    return Continued(text)


def _next_input(execution: "Execution", value: Any) -> str | None:
    workflow = execution.workflow
    if workflow.takes_input:
        codec, limit = workflow.input_codec, execution.services.payload_limit
        return codec.encode(codec.validate(value, "input"), "input", limit)
    if value is not None:
        raise ConfigurationError(f"workflow {workflow.name!r} takes no input")
    return None


def inside_a_step(name: str) -> ConfigurationError:
    """The error for what is asked for by a step, or by a thread, where no replay would come."""
    if current_run.get() is not INSIDE_STEP:
        return ConfigurationError(
            f"step {shown(name)} is asked for outside of its workflow function, in another thread "
            "or event loop, whose order no replay would repeat; await it in the function: branches "
            "of it are made by asyncio.gather, and a plain def workflow may have threads"
        )
    return ConfigurationError(
        f"step {shown(name)} is asked for inside a step, which a replay would not call; "
        "call the function directly there, or ask for the step in the workflow"
    )


def stalled(*tasks: Any) -> Stalled:
    """The error for a function that nothing will move any more, and these tasks of it."""
    coroutines = [task.get_coro() for task in tasks if not task.done()]
    hint = whereabouts.agent(whereabouts.frames_of(coroutines))
    what = "an event or a future that nobody sets, or a lock that nobody gives back"
    if whereabouts.in_thread(coroutines):
        what = f"a thread, which belongs into a step, await step.run(name, function); or {what}"
    return Stalled(
        "the workflow function waits for something that is no step"
        f"{whereabouts.places(coroutines)}, and that no branch of it will end: {what}; whatever "
        f"comes from outside has to come as the result of a step{hint}"
    )


def never_rests(callbacks: int) -> ConfigurationError:
    """The error for a function that goes on by itself, and waits for nothing."""
    return ConfigurationError(
        f"the workflow function did not come to rest within {callbacks:,} callbacks: it polls "
        "(asyncio.sleep(0) in a loop?) instead of waiting; await the step, a lock or an event"
    )


def moved_from_outside() -> ConfigurationError:
    """The error for a function that something moved which no replay will see."""
    return ConfigurationError(
        "something outside of the workflow function has moved it: a step, a thread or another task "
        "has set an event, put into a queue or resolved a future that the function waits for; no "
        "replay would see that, so let a step return the value instead"
    )


def listed(names: Iterable[str]) -> str:
    """The first of them, quoted, and how many more there are."""
    shown = [repr(name) for name in names]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


def _forgotten(execution: "Execution") -> list[str]:
    """Names of steps that the function has called and not awaited."""
    agenda = execution.agenda
    # A branch that is given up where it stands may still hold steps that it would have awaited.
    if any(each.path not in ("", OTHER_THREADS) for each in agenda.operations.values()):
        return []
    return [
        operation.name
        for operation, coroutine in agenda.unawaited.items()
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    ]


def _check_complete(execution: "Execution", alone: Iterable[str]) -> None:
    """Raise for steps that were recorded and not asked for, or asked for and not waited for."""
    agenda, history = execution.agenda, execution.history
    if history.unasked() is not None:
        raise history.mismatch(())
    forgotten = _forgotten(execution)
    if forgotten:
        raise ConfigurationError(
            f"the workflow returned, and {listed(forgotten)} never ran: a step has to be awaited, "
            "await step.run(...), or closed if it is not wanted any more"
        )
    unfinished = [
        operation.key
        for operation in agenda.operations.values()
        if not isinstance(operation, TimerOperation)
        and any(f"{operation.path}.".startswith(f"{path}.") for path in alone)
    ]
    if unfinished:
        raise ConfigurationError(
            f"the workflow returned while {listed(unfinished)} had not ended, in a task or thread "
            "that nobody waits for: await it, or cancel it, before the workflow returns"
        )
