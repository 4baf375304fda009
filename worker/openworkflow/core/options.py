"""Refuses options that a call does not have, with the one that was meant. Pure."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_OF_BOTH = {
    **dict.fromkeys(("max_retries", "retries", "max_attempts", "retry_policy"), "retry"),
    "rate_limit": "rate",
}
OF_A_WORKFLOW = {
    **_OF_BOTH,
    **dict.fromkeys(("timeout", "execution_timeout", "run_timeout", "time_limit"), "deadline"),
    **dict.fromkeys(("cron", "crontab", "every"), "schedule"),
    **dict.fromkeys(("concurrency", "max_concurrency"), "limits"),
}
"""What other programs call the options of @workflow."""
OF_A_STEP = {
    **_OF_BOTH,
    **dict.fromkeys(("start_to_close_timeout", "time_limit", "deadline"), "timeout"),
    **dict.fromkeys(("compensate", "compensation", "rollback"), "undo"),
}
"""What other programs call the options of @step."""


def refuse_unknown(
    call: str,
    given: Iterable[str],
    known: Collection[str] | None,
    meant: Mapping[str, str] | None = None,
) -> None:
    """Raise TypeError for the first that is given and not known, as Python does of parameters.

    `meant` has names that other programs use for one of ours.
    """
    known = known or ()
    for name in given:
        if name not in known:
            near = (meant or {}).get(name) or nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"{call}() has no option {name!r}; {hint}")


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
