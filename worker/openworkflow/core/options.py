"""Refuses options that a call does not have, with the one that was meant. Pure."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_NO_QUEUE = "there are no queues: a worker takes the runs of the workflows that it serves"
_OF_BOTH = {
    **dict.fromkeys(("max_retries", "retries", "max_attempts", "retry_policy"), "retry"),
    **dict.fromkeys(("autoretry_for", "retry_backoff", "retries_allowed"), "retry"),
    **dict.fromkeys(("interval_seconds", "backoff_rate", "backoff_factor"), "retry"),
    **dict.fromkeys(("rate_limit", "rate_limits"), "rate"),
    **dict.fromkeys(("queue", "task_queue"), _NO_QUEUE),
    "bind": "a function is given no task: what it can ask for is current_step() in a step, and "
    "`step` in a workflow",
}
OF_A_WORKFLOW = {
    **_OF_BOTH,
    **dict.fromkeys(("timeout", "execution_timeout", "run_timeout", "time_limit"), "deadline"),
    **dict.fromkeys(("cron", "crontab", "every", "on_crons", "crons"), "schedule"),
    **dict.fromkeys(("concurrency", "max_concurrency"), "limits"),
    "input_validator": "annotate the input: async def ship(order: Order, step: Step)",
}
"""What other programs call the options of @workflow."""
OF_A_STEP = {
    **_OF_BOTH,
    **dict.fromkeys(("start_to_close_timeout", "time_limit", "deadline"), "timeout"),
    **dict.fromkeys(("schedule_to_close_timeout", "execution_timeout"), "timeout"),
    **dict.fromkeys(("compensate", "compensation", "rollback"), "undo"),
    "heartbeat_timeout": "there are no heartbeats of steps: a worker's lease is extended meanwhile",
    "parents": "a workflow awaits one step after the other",
}
"""What other programs call the options of @step."""
OF_A_RUN = {
    **dict.fromkeys(
        ("countdown", "eta", "delay", "run_after", "run_at", "start_at"), "available_at"
    ),
    **dict.fromkeys(("start_delay", "scheduled_for", "schedule_time"), "available_at"),
    **dict.fromkeys(("id", "run_id", "task_id", "workflow_id", "job_id", "key"), "idempotency_key"),
    **dict.fromkeys(("conn", "db", "session", "transaction", "using"), "connection"),
    **dict.fromkeys(("expires", "timeout", "execution_timeout", "run_timeout"), "deadline"),
    **dict.fromkeys(("metadata", "additional_metadata", "memo", "labels"), "tags"),
    "search_attributes": "tags",
    **dict.fromkeys(("queue", "task_queue"), _NO_QUEUE),
    **dict.fromkeys(
        ("retry", "retry_policy", "max_retries"), "retry= is of @workflow, and of steps"
    ),
    "namespace_id": "a client is of one namespace: BackendPostgres.connect(url, namespace_id=...)",
    **dict.fromkeys(("input", "arg", "args", "kwargs"), "the input follows the workflow"),
}
"""What other programs call the options of a run."""
OF_A_WORKER = {
    **dict.fromkeys(("slots", "max_concurrency", "worker_concurrency"), "concurrency"),
    **dict.fromkeys(("max_concurrent_workflow_tasks", "max_concurrent_activities"), "concurrency"),
    **dict.fromkeys(("identity", "name"), "worker_id"),
    **dict.fromkeys(("graceful_shutdown_timeout", "grace_period"), "drain"),
    **dict.fromkeys(
        ("activities", "steps", "tasks"), "functions of steps need no list: a workflow calls them"
    ),
    **dict.fromkeys(("queue", "queues", "task_queue"), _NO_QUEUE),
}
"""What other programs call the options of a worker."""


def refuse_unknown(
    call: str,
    given: Iterable[str],
    known: Collection[str] | None,
    meant: Mapping[str, str] | None = None,
    beside: str = "",
) -> None:
    """Raise TypeError for the first that is given and not known, as Python does of parameters.

    `meant` has names that other programs use for one of ours, or what to do instead; `beside` what
    is given in another way.
    """
    known = known or ()
    for name in given:
        if name not in known:
            guess = (meant or {}).get(name, "")
            if " " not in guess and guess not in known:
                guess = f"{guess}s" if f"{guess}s" in known else nearest(name, known) or ""
            hint = hint_of(guess) if guess else f"there are {', '.join(known)}{beside}"
            raise TypeError(f"{call}() has no option {name!r}; {hint}")


def hint_of(meant: str) -> str:
    """A name that was meant, as a question; a sentence as it is."""
    return meant if " " in meant else f"did you mean {meant!r}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of these that is spelt like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def says_what_was_meant(**meant: str) -> Callable[[C], C]:
    """Decorate a class whose keywords people guess: by other programs' names, `meant` has ours."""

    def decorate(cls: C) -> C:
        init: Any = cls.__init__  # type: ignore[misc]  # of this class, and no other's
        known = [name for name in inspect.signature(init).parameters if name != "self"]

        @wraps(init)
        def checked(self: Any, *args: Any, **given: Any) -> None:
            refuse_unknown(cls.__name__, given, known, meant)
            init(self, *args, **given)

        setattr(cls, "__init__", checked)  # noqa: B010  # a checker would refuse the plain form
        return cls

    return decorate
