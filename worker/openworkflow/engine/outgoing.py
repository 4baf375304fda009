"""A signal that somebody wants sent, checked and as the row to store."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from openworkflow.backend.records import Outgoing
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.ids import uuid7
from openworkflow.core.names import KEY_LIMIT, NAME_LIMIT, storable_text
from openworkflow.core.serialization import codec_for
from openworkflow.core.shown import shown

KEEP_FOR = timedelta(hours=24)
"""How long a signal to a topic waits for those who begin to wait later."""

_PLAIN = (dict, list, tuple, str, int, float, bool, type(None))


def outgoing(
    to: object,
    message: tuple[Any, ...],
    *,
    idempotency_key: str | None = None,
    keep_for: Duration | None = None,
    limit: int,
    message_id: UUID | None = None,
) -> Outgoing:
    """The signal `message` (name and value) to the run `to`, or (value) to that topic.

    Raises ConfigurationError or SerializationError, and then nothing is sent.
    """
    if idempotency_key is not None:
        storable_text("idempotency_key", idempotency_key, KEY_LIMIT)
    run_id = _run_id(to)
    name, value = _split(to, run_id, message)
    storable_text("a signal's name" if run_id else "a topic", name, NAME_LIMIT)
    if run_id is not None and keep_for is not None:
        raise ConfigurationError(
            "keep_for is for signals to a topic; one to a run is kept as long as the run"
        )
    return Outgoing(
        uuid7() if message_id is None else message_id,
        name,
        encoded(name, value, limit),
        run_id,
        idempotency_key,
        None if run_id else KEEP_FOR if keep_for is None else parse_duration(keep_for),
    )


def encoded(name: str, value: Any, limit: int) -> str | None:
    """The JSON of a signal's value, by its own type: whoever waits says what it is to become."""
    codec = codec_for(Any if type(value) in _PLAIN else type(value))
    return codec.encode(value, "signal", limit, name)


def _run_id(to: object) -> UUID | None:
    """The run that is meant; None if it is a topic."""
    if isinstance(to, UUID):
        return to
    if isinstance(to, str):
        return None
    run_id = getattr(to, "id", None)
    if isinstance(run_id, UUID):
        return run_id
    raise ConfigurationError(
        f"a signal goes to a run (its UUID, or its handle) or to a topic (text), not to {shown(to)}"
    )


def _split(to: object, run_id: UUID | None, message: tuple[Any, ...]) -> tuple[Any, Any]:
    if run_id is None and _is_uuid(str(to)):
        raise ConfigurationError(
            f"{to!r} is text, and so a topic; for the run of that id pass UUID({to!r})"
        )
    least = 0 if run_id is None else 1
    if not least <= len(message) <= least + 1:
        shape = 'signal("topic", value)' if run_id is None else 'signal(run_id, "name", value)'
        raise ConfigurationError(f"to send a signal takes {shape}, not {len(message)} values")
    value = message[least] if len(message) > least else None
    if run_id is None and isinstance(value, UUID):
        raise ConfigurationError(
            f"a run comes before the name of its signal: signal(run_id, {to!r}, value); to send "
            "an id to a topic, make it text: str(run_id)"
        )
    if run_id is not None:
        return message[0], value
    return to, value


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
