"""How a library's call becomes a step: in which run, with which options, tried again or not."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypedDict

from openworkflow.core.duration import Duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.limits import Rate
from openworkflow.core.retry import DEFAULT_STEP_RETRY, RetryPolicy, check_policy
from openworkflow.core.workflow import INSIDE_STEP, current_run
from openworkflow.engine.step import SyncStep

_BUSY = frozenset({408, 409, 425, 429})
"""Answers of HTTP by which the request was refused for now, and not for what it is."""


class StepOptions(TypedDict, total=False):
    """Options of the steps of an agent; see Step.run."""

    retry: RetryPolicy
    timeout: Duration
    rate: str | Rate


@dataclasses.dataclass(frozen=True, slots=True)
class _CallRetry(RetryPolicy):
    """A policy that also knows which refusals of a provider are final."""

    def retries(self, error: BaseException) -> bool:
        """See RetryPolicy.retries."""
        status = getattr(error, "status_code", None)
        is_final = isinstance(status, int) and 400 <= status < 500 and status not in _BUSY
        return not is_final and RetryPolicy.retries(self, error)


def current_workflow() -> Any:
    """What the workflow that calls was handed as its `step`; None in a step, and in no workflow."""
    run = current_run.get()
    return None if run is INSIDE_STEP else run


async def as_step(
    name: str, call: Callable[[], Any], options: StepOptions, *final: type[Exception]
) -> Any:
    """Call as a step of the workflow that calls; `final` errors are not tried again.

    In a step, and in no workflow, it is called as it is.
    Raises what the call raised, and ConfigurationError in a workflow that is a plain `def`.
    """
    run = current_workflow()
    if run is None:
        told = call()
        return await told if inspect.isawaitable(told) else told
    if isinstance(run, SyncStep):
        raise ConfigurationError("an agent is run in a workflow that is an `async def`")
    given = options.get("retry", DEFAULT_STEP_RETRY)
    check_policy(f"step {name!r}", given)
    values = {
        each.name: getattr(given, each.name) for each in dataclasses.fields(given) if each.init
    }
    values["non_retryable"] = (*given.non_retryable, *final)
    return await run.run(name, call, **{**options, "retry": _CallRetry(**values)})
