"""Where runs live: a namespace in a schema, and the channels of its wake-ups."""

from dataclasses import dataclass

from openworkflow.core.names import storable_text
from openworkflow_contract import channels

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
        storable_text("namespace_id", self.id, NAMESPACE_LIMIT, unit="bytes")
        storable_text("schema", self.schema, IDENTIFIER_LIMIT, unit="bytes")

    @property
    def work_channel(self) -> str:
        """Workers listen here."""
        return channels.work_channel(self.schema, self.id)

    @property
    def done_channel(self) -> str:
        """Channel for whoever waits for results."""
        return channels.done_channel(self.schema, self.id)

    @property
    def events_channel(self) -> str:
        """Channel for whoever follows the events of a run."""
        return channels.events_channel(self.schema, self.id)

    @property
    def place(self) -> dict[str, str]:
        """What statements are told of it, by the names of their parameters."""
        return {
            "namespace_id": self.id,
            "schema": self.schema,
            "work_channel": self.work_channel,
            "done_channel": self.done_channel,
            "events_channel": self.events_channel,
        }
