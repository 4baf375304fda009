"""What a codec of stored values is."""

from collections.abc import Awaitable
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """Where a value is stored. The same when it is encoded and when it is decoded.

    It names no run: an occurrence has the input of its schedule, and a fork the results of the run
    that it was forked from, without anybody decoding them.
    """

    namespace: str
    kind: str
    """input, result, step, signal, event or status."""
    name: str
    """Name of the workflow for an input, of the step, signal or topic; empty for the others."""

    @property
    def shown(self) -> str:
        """In words, such as `the result of step 'charge'`."""
        told = {
            "input": f"the input of workflow {self.name!r}",
            "result": "the result of the run",
            "step": f"the result of step {self.name!r}",
            "signal": f"signal {self.name!r}",
            "event": f"an event of topic {self.name!r}",
            "status": "the status of the run",
        }
        return told.get(self.kind, self.kind)


class Encoded(NamedTuple):
    """What a codec has made of a value."""

    data: bytes
    note: str = ""
    """What decoding needs to know, such as the id of a key. It is stored where all can read it."""


class PayloadCodec(Protocol):
    """Encodes values before they are stored, and decodes them.

    Both methods may be async. Those that are not are called in a thread for a large value. What
    they raise is tried again for about four seconds, but for a CodecError, which says that there is
    no sense in that, and for TypeError, ValueError, AttributeError and LookupError.
    """

    @property
    def name(self) -> str:
        """What stands in the envelope: lower-case letters, digits, dots and hyphens."""

    def encode(self, data: bytes, place: Place) -> Encoded | Awaitable[Encoded | None] | None:
        """The value encoded; None to leave it as it is."""

    def decode(self, data: bytes, note: str, place: Place) -> bytes | Awaitable[bytes]:
        """What `encode` was given. Raises CodecError where that is not to be had."""
