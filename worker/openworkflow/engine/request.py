"""What a caller wants, checked and as the row to store. Nothing is stored if it does not fit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from openworkflow.backend.records import NewRun
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError, InputValidationError
from openworkflow.core.names import KEY_LIMIT, NAME_LIMIT, storable_text
from openworkflow.core.options import OF_A_RUN, OF_A_WORKER, refuse_unknown
from openworkflow.core.priority import run_priority
from openworkflow.core.serialization import codec_of
from openworkflow.core.shown import shown
from openworkflow.core.tags import encode_tags
from openworkflow.core.unique import Debounce, Unique
from openworkflow.core.workflow import Workflow


class DjangoConnection(Protocol):
    """What `django.db.connection` is, as far as it is looked at."""

    vendor: str

    @property
    def in_atomic_block(self) -> bool:
        """Whether it is within `transaction.atomic()`."""


if TYPE_CHECKING:
    import asyncpg
    import psycopg
    import psycopg2.extensions
    import sqlalchemy
    from asyncpg.pool import PoolConnectionProxy
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    CallersConnection = (
        asyncpg.Connection[Any]
        | PoolConnectionProxy[Any]
        | psycopg.Connection[Any]
        | psycopg.AsyncConnection[Any]
        | psycopg.Cursor[Any]
        | psycopg.AsyncCursor[Any]
        | psycopg2.extensions.connection
        | psycopg2.extensions.cursor
        | Session
        | scoped_session[Any]
        | sqlalchemy.Connection
        | AsyncSession
        | async_scoped_session[Any]
        | AsyncConnection
        | DjangoConnection
    )


Moment = datetime | Duration
"""A time, which must carry a time zone, or a length of time from now."""


class SharedOptions(TypedDict, total=False):
    """What may be said about one run as well as about many."""

    version: str | None
    """The version of the workflow; its own where it is given with its code."""
    available_at: Moment | None
    """When it may start; by default at once."""
    deadline: Moment | None
    """When it is failed unless it has ended; by default as the workflow says."""
    tags: Mapping[str, str] | None
    """Names and texts by which people find the run; see core/tags.py for what they may be."""
    priority: int
    """From 0 to 9: it is claimed as if it had been due so many hours earlier."""
    connection: "CallersConnection | None"
    """A connection of yours, in a transaction with which the run comes into being, or does not: of
    asyncpg, psycopg, SQLAlchemy over them, or Django."""


class RunOptions(SharedOptions, total=False):
    """Options of OpenWorkflow.run_workflow."""

    idempotency_key: str | None
    """A second call for the workflow with this key within 24 h returns the first run."""
    unique: Unique | str | None
    """A key that one unfinished run of the workflow has at a time."""
    debounce: Debounce | None
    """One run, later, for calls that come shortly one after the other."""


class ManyRunsOptions(SharedOptions, total=False):
    """Options of OpenWorkflow.run_workflows."""

    idempotency_keys: Sequence[str | None] | None
    """Idempotency keys, one for each input."""


class Sending(TypedDict, total=False):
    """Options of OpenWorkflow.signal, and of RunHandle.signal."""

    idempotency_key: str | None
    """A second signal of the name with this key, to the same run or topic, is not sent."""
    connection: "CallersConnection | None"
    """A connection of yours, in a transaction with which the signal is sent, or is not."""


class TopicSending(Sending, total=False):
    """Options of OpenWorkflow.signal to a topic."""

    keep_for: Duration | None
    """How long it is kept for runs that begin to wait later; by default 24 h."""


_OF_RUNS = (RunOptions, ManyRunsOptions)

MAP_OPTIONS = ("concurrency", "key", "min_successful", "tolerate_failures")
"""Parameters of `step.map`, beside the options of its items."""


def check_options(call: str, given: Mapping[str, object], kind: type, *others: str) -> None:
    """Refuse options that a TypedDict does not have, as Python refuses parameters: by TypeError.

    `others` are parameters of the call that may have been meant.
    """
    words = OF_A_WORKER if call == "new_worker" else OF_A_RUN
    beside = "; the input is one value, which follows the workflow" if kind in _OF_RUNS else ""
    refuse_unknown(call, given, [*others, *kind.__annotations__], words, beside)


def needs_input(workflow: object) -> bool:
    """Whether a run of it without an input is refused; False of one that is given by name."""
    if not isinstance(workflow, Workflow) or not workflow.takes_input:
        return False
    return not workflow.input_codec.takes_none


@dataclass(frozen=True, slots=True)
class Request:
    """One or many runs of a workflow that somebody asks for, with the options they share."""

    workflow: Workflow[Any, Any] | str
    options: SharedOptions
    payload_limit: int

    def runs(self, inputs: Iterable[Any], keys: Iterable[str | None]) -> list[NewRun]:
        """The row of each run. Raises SerializationError or ConfigurationError."""
        name, version, deadline = self._identity()
        storable_text("workflow", name, NAME_LIMIT)
        if version is not None:
            storable_text("version", version, NAME_LIMIT)
        at, delay = _moment("available_at", self.options.get("available_at"))
        deadline_at, deadline_in = _moment("deadline", deadline)
        _check_order(at, delay, deadline_at, deadline_in)
        tags = encode_tags(self.options.get("tags"))
        priority = run_priority(self.options.get("priority"))
        rows = []
        for value, key in zip(inputs, keys, strict=True):
            if key is not None:
                storable_text("idempotency_key", key, KEY_LIMIT)
            text, limits = self._encode(value)
            new = NewRun(name, version, text, key, at, delay, deadline_at, deadline_in)
            rows.append(new._replace(tags=tags, limits=limits, priority=priority))
        return rows

    def _identity(self) -> tuple[str, str | None, Moment | None]:
        version, deadline = self.options.get("version"), self.options.get("deadline")
        if isinstance(self.workflow, str):
            return self.workflow, version, deadline
        if not isinstance(self.workflow, Workflow):
            raise ConfigurationError(
                f"not a workflow: {shown(self.workflow)}; decorate it with @workflow, or give the "
                "name of one"
            )
        return (
            self.workflow.name,
            self.workflow.version if version is None else version,
            self.workflow.deadline if deadline is None else deadline,
        )

    def _encode(self, value: Any) -> tuple[str | None, str | None]:
        """The input as JSON text, and the limits that it is under."""
        if isinstance(self.workflow, str):
            return codec_of(value).encode(value, "input", self.payload_limit), None
        limits = self.workflow.limits
        if not self.workflow.takes_input:
            if value is not None:
                raise ConfigurationError(f"workflow {self.workflow.name!r} takes no input")
            return None, limits.of(None) if limits else None
        codec = self.workflow.input_codec
        if value is None and not codec.takes_none:
            raise InputValidationError(
                f"workflow {self.workflow.name!r} takes an input, and got none: give it after the "
                "workflow",
                "input",
            )
        valid = codec.validate(value, "input")
        text = codec.encode(valid, "input", self.payload_limit)
        return text, limits.of(valid) if limits else None


def _moment(what: str, value: Moment | None) -> tuple[datetime | None, timedelta | None]:
    """A point in time, or a length of time from now."""
    if value is None:
        return None, None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{what} must carry a time zone, for example tzinfo=UTC")
        return value, None
    return None, parse_duration(value)


def _check_order(
    at: datetime | None,
    delay: timedelta | None,
    deadline_at: datetime | None,
    deadline_in: timedelta | None,
) -> None:
    """Refuse a run whose deadline is over before it may start."""
    if deadline_at is None and deadline_in is None:
        return
    now = datetime.now(UTC)  # only to compare two wishes; the database's clock decides later
    try:
        start = at or now + (delay or timedelta(0))
        end = deadline_at or now + (deadline_in or timedelta(0))
    except OverflowError:
        raise ConfigurationError(
            "available_at and deadline must lie before the year 9999"
        ) from None
    if end <= start:
        raise ConfigurationError("the deadline must be later than available_at, and than now")
