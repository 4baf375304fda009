"""Who am I: what a step's function may know of the step that calls it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from openworkflow.core.errors import ConfigurationError
from openworkflow.telemetry.logs import log_step


@dataclass(frozen=True, slots=True)
class CurrentStep:
    """One attempt of a step, while its function runs."""

    run_id: UUID
    workflow_name: str
    name: str
    """The step's key, as `runs show` has it: its name, or `name:1` where the name came before."""
    attempt: int
    """Counts from 1; one that was cut short by a crash is made again under its number."""
    key: str
    """An idempotency key for the step's effects: the same for all its attempts, whoever makes
    them, and for no other step of any run."""


def current_step() -> CurrentStep:
    """The step whose function is running, async or in a thread.

    Raises ConfigurationError anywhere else.
    """
    operation = current_operation()
    execution, call = operation.execution, operation.attempt
    return CurrentStep(
        execution.claim.id,
        execution.workflow.name,
        operation.key,
        1 if call is None else call.attempt,
        stable_key(operation),
    )


def current_operation() -> Any:
    """The operation whose function is running; see `current_step`."""
    operation = log_step.get()
    if operation is None:
        raise ConfigurationError(
            "current_step() is for the functions that a workflow calls as steps; in the workflow "
            "itself there are step.run_id, step.attempt and step.key"
        )
    return operation


def run_key(claim: Any) -> str:
    """What begins the keys of a run: another one once the run has continued as new."""
    return f"{claim.id}" if not claim.history_from else f"{claim.id}+{claim.history_from}"


def stable_key(operation: Any) -> str:
    """The key of a step's effects, by its call: which branch asks, and how often it did before.

    Not by what its rows are called: where branches share a name, that is decided by who was first.
    A step that was undone and is done again has another one: under the old one its effect would be
    taken for done. What undoes it has a key of its own.
    """
    if (undone := getattr(operation, "undoes", None)) is not None:
        return f"{stable_key(undone)}/undo"
    execution = operation.execution
    call = execution.history.keys.requested.get(operation.key)
    start = f"{run_key(execution.claim)}/{operation.name}"
    undone = execution.history.undo
    if undone is not None and (rounds := undone.rounds[operation.key]):
        start += f"~{rounds}"
    if call is None or (not call.path and not call.nth):
        return start
    return f"{start}:{call.nth}@{call.path}"
