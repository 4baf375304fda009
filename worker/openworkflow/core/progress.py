"""What runs tell while they go on: a status, events and tags, checked and as JSON text. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from openworkflow.core.errors import PayloadTooLarge
from openworkflow.core.names import NAME_LIMIT, storable_text
from openworkflow.core.serialization import codec_for

TOPIC_LIMIT = NAME_LIMIT
"""Characters of a topic's name."""
STATUS_LIMIT = 4096
"""Bytes of JSON of a status."""
EVENT_LIMIT = 65_536
"""Bytes of JSON of an event's value."""
DEFAULT_MAX_EVENTS = 100_000
"""Events that a run may emit before it continues as new."""
MOST_TOPICS = 1000
"""Topics of one run."""

_PLAIN = (dict, list, tuple, str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event that a run has emitted."""

    offset: int
    """Number among all events of the run, from 0; those of one topic have some of them."""
    topic: str
    value: Any
    step: str | None
    """The step whose function has emitted it; None for the workflow itself."""
    attempt: int | None
    """The attempt of that step: one that fails, or whose worker dies, is made again, and so are its
    events."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What a run says of itself."""

    status: Any
    """The last that it has set; None if it has set none."""
    status_at: datetime | None
    events: int
    """How many events it has emitted."""


NOTHING_TOLD = RunProgress(None, None, 0)
"""What a run says that has said nothing."""


class Told(NamedTuple):
    """What a run had told by the end of an earlier claim."""

    claim_no: int
    events: int
    events_from: int
    counts: Mapping[str, int]
    retried: bool


class EventsAsked(NamedTuple):
    """Which events of a run somebody wants next: from this number on, of one topic or of all."""

    run_id: UUID
    event_no: int
    topic: str | None


class EventsFound(NamedTuple):
    """What was found of them."""

    ended: bool
    """The run has ended: it emits no more than this."""
    events: list[RunEvent]


def checked_topic(topic: object) -> str:
    """Return `topic` if it can be one. Raises ConfigurationError."""
    return storable_text("a topic", topic, TOPIC_LIMIT, printable=True)


def encoded_event(topic: str, value: Any) -> str | None:
    """JSON text of an event's value. Raises SerializationError."""
    return _encoded(value, "event", EVENT_LIMIT, topic)


def encoded_status(value: Any) -> str | None:
    """JSON text of a status. Raises SerializationError."""
    return _encoded(value, "status", STATUS_LIMIT)


def _encoded(value: Any, what: str, limit: int, name: str = "") -> str | None:
    codec = codec_for(Any if type(value) in _PLAIN else type(value))
    try:
        return codec.encode(value, what, limit, name)
    except PayloadTooLarge as error:  # no setting raises it
        raise PayloadTooLarge(error.what, error.size, limit, fixed=True) from None
