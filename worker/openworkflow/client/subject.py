"""What a pause is about: one run, one workflow, or everything in the namespace."""

import contextlib
from typing import Any
from uuid import UUID

from openworkflow.backend.pausing import ALL_WORKFLOWS
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow

REASON_LIMIT = 1000
"""Characters of a reason."""


def checked_id(run_id: object) -> UUID:
    """Refuse what is no run's id, with what was meant. Raises ConfigurationError."""
    if isinstance(run_id, UUID):
        return run_id
    if isinstance(getattr(run_id, "id", None), UUID):
        raise ConfigurationError(f"give the id of {shown(run_id)}: its .id")
    with contextlib.suppress(ValueError):
        if isinstance(run_id, str):
            said = f"UUID({str(UUID(run_id))!r})"
            raise ConfigurationError(f"a run's id is a UUID, not text: write {said}")
    raise ConfigurationError(
        f"a run's id is a UUID, as `run.id` and `runs list` have it, not {shown(run_id)}"
    )


def subject(
    run_id: UUID | None,
    workflow: Workflow[Any, Any] | str | None,
    everything: bool,
    *,
    reason: str | None = None,
    by: str | None = None,
) -> str | None:
    """The workflow's name, "" for all; None for a run. Raises ConfigurationError."""
    if [run_id is not None, workflow is not None, everything].count(True) != 1:
        raise ConfigurationError("give a run's id, or workflow=, or everything=True: one of them")
    if reason is not None:
        storable_text("reason", reason, REASON_LIMIT)
    if by is not None:
        storable_text("by", by, NAME_LIMIT)
    if run_id is not None:
        checked_id(run_id)
        return None
    if everything:
        return ALL_WORKFLOWS
    name = workflow.name if isinstance(workflow, Workflow) else workflow
    return storable_text("workflow", name, NAME_LIMIT)
