"""Rows of the database as the types of the core, and the cursors of pages."""

import json
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

import asyncpg

from openworkflow.backend.records import Page
from openworkflow.core.cursor import cursor_of
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

M = TypeVar("M", bound=StrEnum)

_JSON_COLUMNS = ("config", "context", "input", "output", "error", "pause", "tags")
_RUN_COLUMNS = [field.name for field in fields(WorkflowRun)]
_STEP_COLUMNS = [field.name for field in fields(StepAttempt)]


def as_run(row: asyncpg.Record) -> WorkflowRun:
    """A row of `workflow_runs`, however odd: one row must not keep a page from being shown."""
    values = _decoded(row, _RUN_COLUMNS)
    values["status"] = as_member(RunStatus, values["status"])
    return WorkflowRun(**values)


def as_step(row: asyncpg.Record) -> StepAttempt:
    """A row of `step_attempts`, however odd."""
    values = _decoded(row, _STEP_COLUMNS)
    values["kind"] = as_member(StepKind, values["kind"])
    values["status"] = as_member(StepStatus, values["status"])
    return StepAttempt(**values)


def as_member(enum: type[M], text: str) -> M:
    """The member of this value; for one that a newer version wrote, a member of its own."""
    try:
        return enum(text)
    except ValueError:
        member = str.__new__(enum, text)
        member._name_ = member._value_ = text
        return member


def page_of(rows: Sequence[asyncpg.Record], limit: int) -> Page:
    """The first `limit` runs, and where those after them begin, of which one is among the rows."""
    runs = [as_run(row) for row in rows[:limit]]
    last = runs[-1] if len(rows) > limit else None
    return Page(runs, None if last is None else cursor_of(last.created_at, last.id))


def _decoded(row: asyncpg.Record, columns: Sequence[str]) -> dict[str, Any]:
    values = {column: row.get(column) for column in columns}
    for column in _JSON_COLUMNS:
        if (text := values.get(column)) is not None:
            values[column] = as_json(text)
    return values


def as_json(text: str) -> Any:
    """The value; the text itself where Python cannot hold it, such as a number of 5,000 digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
