"""Priorities: which of the runs that are due is taken first. Pure.

A priority is a head start: a run is claimed as if it had been due so many hours earlier. So nobody
waits forever, and where there is room for all it makes no difference.
"""

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

HIGHEST = 9


def check_workflow_priority(workflow: str, value: object) -> int:
    """The priority of a workflow, below 0 for one that can wait. Raises ConfigurationError."""
    if type(value) is not int or not -HIGHEST <= value <= HIGHEST:
        raise ConfigurationError(
            f"workflow {workflow!r}: priority is a whole number from -{HIGHEST} to {HIGHEST}, "
            f"not {shown(value)}"
        )
    return value


def run_priority(value: object) -> int | None:
    """The priority of a run as it is stored: None for none. Raises ConfigurationError."""
    if value is None:
        return None
    if type(value) is int and -HIGHEST <= value < 0:
        raise ConfigurationError(
            f"the priority of a run is 0 to {HIGHEST}, not {value}: it can go before others of its "
            "workflow, and not behind them; what can wait is a workflow, "
            "@workflow(priority=-1)"
        )
    if type(value) is not int or not 0 <= value <= HIGHEST:
        raise ConfigurationError(
            f"the priority of a run is a whole number from 0 to {HIGHEST}, not {shown(value)}"
        )
    return value or None


def inherited(given: int | None, parent: int) -> int | None:
    """The priority of a child, beside that of its parent's run, whose workflow has this one."""
    return max(given or 0, parent) or None
