"""What the loop of a workflow function does not do, and what it says instead."""

from collections.abc import Callable
from typing import Any, NoReturn

from openworkflow.core.errors import ConfigurationError
from openworkflow.engine import whereabouts

_OWNERS = ("close", "run_forever", "run_until_complete", "set_", "shutdown_", "stop")
"""How names begin that reach nothing outside, but are for whoever made the loop."""


def refusal(name: str) -> Callable[..., NoReturn]:
    """The method of this name, which raises ConfigurationError."""
    told = (
        f"workflow code may not reach outside (asyncio's {name}): a replay would do it again; "
        "put it into a function and run that as a step: await step.run(name, function)"
    )
    if name.startswith(_OWNERS):
        told = (
            "workflow code may not set up, run or close the loop that it runs on "
            f"(asyncio's {name}): leave it out; tasks are made by create_task or a TaskGroup"
        )

    def refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
        raise ConfigurationError(f"{told}{whereabouts.agent(whereabouts.callers())}")

    return refuse
