"""What a test hands to a plain call of a workflow in the place of `step`."""

from collections.abc import Callable
from typing import Any


class StandIn:
    """Calls the workflow's function itself; openworkflow.testing has those for users."""

    def _enact(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Call the function, as the run that its steps belong to."""
        raise NotImplementedError
