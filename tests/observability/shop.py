"""What the worker under test serves: a workflow of each fate."""

import itertools

from openworkflow import NonRetryableError, RetryPolicy, Step, workflow

_calls = itertools.count()


def flaky() -> None:
    """Fail at every other call."""
    if next(_calls) % 2 == 0:
        raise ValueError("once again")


def broken() -> None:
    """Fail for good."""
    raise NonRetryableError("no luck")


@workflow
async def succeed(step: Step) -> None:
    """One step that fails, is retried, and a short sleep."""
    await step.run("flaky", flaky, retry=RetryPolicy(initial="10ms", max_attempts=20))
    await step.sleep("nap", "50ms")


@workflow
async def fail(step: Step) -> None:
    """The run fails."""
    await step.run("broken", broken)


@workflow
async def sleep(step: Step) -> None:
    """Longer than the test."""
    await step.sleep("night", "1h")
