"""`step.pause_limit`: tells all runs that a limit is to be let alone for a time."""

from datetime import datetime
from typing import Any

from openworkflow.core.duration import Duration
from openworkflow.engine import rated
from openworkflow.engine.operations.call import CallOperation


def pause_operation(execution: Any, name: str, until: datetime | Duration) -> CallOperation:
    """The call that pauses it. Raises ConfigurationError."""
    rated.check_pause(name, until)

    async def pause() -> None:
        await rated.pause(execution, name, until)

    return CallOperation(execution, f"pause:{name}", pause, (), {}, None, None)
