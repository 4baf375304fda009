"""Where runs live: a namespace in a schema, and the channels of its wake-ups."""

import hashlib
from dataclasses import dataclass

from openworkflow.core.errors import ConfigurationError

NAMESPACE_LIMIT = 255
"""Bytes of UTF-8."""
IDENTIFIER_LIMIT = 63
"""Bytes; PostgreSQL's."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace id and the schema of its tables; ConfigurationError if either cannot be."""

    id: str
    schema: str

    def __post_init__(self) -> None:
        _check("namespace_id", self.id, NAMESPACE_LIMIT)
        _check("schema", self.schema, IDENTIFIER_LIMIT)

    @property
    def work_channel(self) -> str:
        """Workers listen here."""
        return f"openworkflow_work_{self._digest}"

    @property
    def done_channel(self) -> str:
        """Those who wait for results listen here."""
        return f"openworkflow_done_{self._digest}"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(f"{self.schema}.{self.id}".encode()).hexdigest()[:16]


def _check(what: str, name: str, limit: int) -> None:
    if type(name) is not str or not name or "\0" in name:
        raise ConfigurationError(f"{what} must be text without NUL, and not empty")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ConfigurationError(f"{what} contains half of a surrogate pair, which is no text")
    size = len(name.encode())
    if size > limit:
        raise ConfigurationError(f"{what} {name[:20]!r}... has {size} bytes; {limit} are allowed")
