"""What is asked about runs, checked before it becomes the arguments of a statement. Pure."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow.core.shown import shown
from openworkflow.core.workflow_run import RunStatus

MOST_RUNS = 1_000_000
"""Runs of one page; fewer are what a program can hold."""
TEXT_LIMIT = 1000
"""Characters of a text that runs are asked for by: more than any of them has."""


def check_is(what: str, value: object, kind: type | tuple[type, ...], meant: str) -> None:
    """Refuse what is not of a kind, in words: "limits is a list". Raises ConfigurationError."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{what} is {meant}, not {shown(value)}")


def check_list(what: str, value: object, meant: str) -> None:
    """Refuse what has no elements, or other ones than are meant. Raises ConfigurationError."""
    if not isinstance(value, Collection) or isinstance(value, (str, bytes, Mapping)):
        raise ConfigurationError(f"{what} is {meant}, not {shown(value)}")


def page_size(limit: object) -> int:
    """Return `limit` if a page can have so many runs. Raises ConfigurationError."""
    if type(limit) is not int or not 1 <= limit <= MOST_RUNS:
        raise ConfigurationError(
            f"limit is a whole number, must be at least 1 and at most {MOST_RUNS}, "
            f"not {shown(limit)}"
        )
    return limit


def check_asked(field: str, kind: type, value: Any) -> None:
    """Refuse what a field of RunFilter cannot be. Raises ConfigurationError that names it."""
    if value is None or value == "":  # which no run has
        return
    if kind is str:
        storable_text(field, value, TEXT_LIMIT)
    elif kind is RunStatus:
        if not isinstance(value, str) or value not in list(RunStatus):
            known = ", ".join(RunStatus)
            raise ConfigurationError(f"status is one of {known}, not {shown(value)}")
    elif not isinstance(value, kind):
        meant = {UUID: "a UUID", datetime: "a datetime"}[kind]
        raise ConfigurationError(f"{field} is {meant}, not {shown(value)}")
