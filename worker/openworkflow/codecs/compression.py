"""Compression of values, by zlib of the standard library."""

import zlib

from openworkflow.codecs.protocol import Encoded, PayloadCodec, Place
from openworkflow.core.errors import CodecError, ConfigurationError
from openworkflow.core.serialization import MOST_PAYLOAD_LIMIT
from openworkflow.core.shown import shown

OVER_BYTES = 4096
"""PostgreSQL itself compresses what is larger than about 2 kB, quicker and less."""


class Compression(PayloadCodec):
    """Compresses values of more than `over` bytes of JSON; with None it only decodes.

    `level` is zlib's, from 1 to 9. What would not be smaller by a quarter is left as it is, since
    an envelope takes a third more than its data. Raises ConfigurationError.
    """

    name = "zlib"

    def __init__(self, *, over: int | None = OVER_BYTES, level: int = 6) -> None:
        if over is not None and (type(over) is not int or over < 0):
            raise ConfigurationError(f"over is a number of bytes, or None, not {shown(over)}")
        if type(level) is not int or not 1 <= level <= 9:
            raise ConfigurationError(f"level is a whole number from 1 to 9, not {shown(level)}")
        self._over, self._level = over, level

    def encode(self, data: bytes, place: Place) -> Encoded | None:
        """See PayloadCodec."""
        if self._over is None or len(data) <= self._over:
            return None
        small = zlib.compress(data, self._level)
        return Encoded(small) if len(small) < 0.75 * len(data) else None

    def decode(self, data: bytes, note: str, place: Place) -> bytes:
        """See PayloadCodec. Raises CodecError too for what is larger than any value can be."""
        stream = zlib.decompressobj()
        try:
            value = stream.decompress(data, MOST_PAYLOAD_LIMIT)
        except zlib.error as error:
            raise CodecError(f"its compressed data is damaged ({error})") from error
        if not stream.eof:
            raise CodecError("its compressed data is cut short, or larger than a value can be")
        return value
