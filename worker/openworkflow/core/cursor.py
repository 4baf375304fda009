"""Where a listing goes on, as a text that is passed back. Pure."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from openworkflow.core.asked import check_is
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown


def cursor_of(at: datetime, run_id: UUID) -> str:
    """The text of a time and a run."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {run_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str, wanted: str = "the next_cursor of a page") -> tuple[datetime, UUID]:
    """The time and the run of such a text. Raises ConfigurationError, which says what is wanted."""
    check_is("cursor", cursor, str, wanted)
    try:
        at, run_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        return datetime.fromisoformat(at).astimezone(UTC), UUID(run_id)
    except (binascii.Error, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{shown(cursor)} is no cursor; pass {wanted}") from error
