"""What a caller wants, checked and as the row to store. Nothing is stored if it does not fit."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from openworkflow.backend.backend import NewRun
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.serialization import codec_for
from openworkflow.core.workflow import Workflow

KEY_LIMIT = 500
NAME_LIMIT = 200
Moment = datetime | Duration
"""A time, which must carry a time zone, or a length of time from now."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one or many runs of a workflow."""

    workflow: Workflow[Any, Any] | str
    version: str | None
    available_at: Moment | None
    deadline: Moment | None
    payload_limit: int

    def runs(self, inputs: Iterable[Any], keys: Iterable[str | None]) -> list[NewRun]:
        """The row of each run. Raises SerializationError or ConfigurationError."""
        name, version, deadline = self._identity()
        _check_text("workflow", name, NAME_LIMIT)
        _check_text("version", version, NAME_LIMIT)
        at, delay = _moment("available_at", self.available_at)
        deadline_at, deadline_in = _moment("deadline", deadline)
        _check_order(at, delay, deadline_at, deadline_in)
        rows = []
        for value, key in zip(inputs, keys, strict=True):
            _check_text("idempotency_key", key, KEY_LIMIT)
            text = self._encode(value)
            rows.append(NewRun(name, version, text, key, at, delay, deadline_at, deadline_in))
        return rows

    def _identity(self) -> tuple[str, str | None, Moment | None]:
        if isinstance(self.workflow, str):
            return self.workflow, self.version, self.deadline
        if not isinstance(self.workflow, Workflow):
            raise ConfigurationError(
                f"not a workflow: {self.workflow!r:.80}; decorate it with @workflow, or give the "
                "name of one"
            )
        return (
            self.workflow.name,
            self.workflow.version if self.version is None else self.version,
            self.workflow.deadline if self.deadline is None else self.deadline,
        )

    def _encode(self, value: Any) -> str | None:
        if isinstance(self.workflow, str):
            return codec_for(Any).encode(value, "input", self.payload_limit)
        if not self.workflow.takes_input:
            if value is not None:
                raise ConfigurationError(f"workflow {self.workflow.name!r} takes no input")
            return None
        codec = self.workflow.input_codec
        return codec.encode(codec.validate(value, "input"), "input", self.payload_limit)


def _check_text(what: str, text: str | None, limit: int) -> None:
    if text is None:
        return
    if type(text) is not str or not 0 < len(text) <= limit or "\0" in text or not _is_unicode(text):
        raise ConfigurationError(
            f"{what} must be text of 1 to {limit} characters without NUL, not {text!r:.80}"
        )


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
