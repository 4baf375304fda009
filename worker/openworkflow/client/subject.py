"""What a pause is about: one run, one workflow, or everything in the namespace."""

from typing import Any
from uuid import UUID

from openworkflow.backend.pausing import ALL_WORKFLOWS
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.workflow import Workflow

REASON_LIMIT = 1000
"""Characters of a reason."""


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
        return None
    if everything:
        return ALL_WORKFLOWS
    name = workflow.name if isinstance(workflow, Workflow) else workflow
    return storable_text("workflow", name, NAME_LIMIT)
