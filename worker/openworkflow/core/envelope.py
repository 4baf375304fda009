"""What a value is stored as that codecs have encoded: one JSON object, whose only key is `$ow`.

    {"$ow": {"v": 1, "by": ["zlib", "aes-gcm:2026-11"], "data": "...base64..."}}

`by` are the codecs that took part, in the order of encoding; what follows the colon is a codec's
own note, such as the id of a key. A value without an envelope is plain JSON, so both may stand in
one history: a value of this form is refused. Pure: nothing here encodes anything.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from openworkflow.core.shown import shown

KEY = "$ow"
MARK = '{"$ow":'
"""How the text of every envelope begins, as jsonb gives it back and as we write it."""
VERSION = 1
_FIELDS = frozenset({"v", "by", "data"})
_BY = re.compile(r'"by": ?')
"""jsonb puts the shorter keys first, so that the beginning of a long value says what it is."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An encoded value."""

    codecs: tuple[str, ...]
    data: bytes
    version: int = VERSION

    def text(self) -> str:
        """JSON text of the envelope."""
        data = base64.b64encode(self.data).decode()
        fields = {"v": self.version, "by": list(self.codecs), "data": data}
        return json.dumps({KEY: fields}, ensure_ascii=False, separators=(",", ":"))

    @property
    def described(self) -> str:
        """What it is, for people: `encrypted with key '2026-11'`."""
        if self.version != VERSION:
            return f"encoded by a newer program, in version {self.version}"
        told = [_told(*each.partition(":")[::2]) for each in self.codecs]
        return ", ".join(told) or "in an envelope"


class Opened(str):
    """The plain JSON text of an envelope, with the text that is stored.

    A row that is written again, as it is, says the same again.
    """

    __slots__ = ("stored",)

    stored: str

    @classmethod
    def of(cls, text: str, stored: str) -> "Opened":
        """`text`, which is stored as `stored`."""
        made = cls(text)
        made.stored = stored
        return made


def is_marked(text: str | None) -> bool:
    """Whether JSON text may be an envelope; where that is asked often, compare with MARK."""
    return text is not None and text[: len(MARK)] == MARK


def envelope_of(value: Any) -> Envelope | None:
    """The envelope that this JSON value is; None for any other value."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    fields = value.get(KEY)
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        return None
    version, codecs, data = fields["v"], fields["by"], fields["data"]
    if type(version) is not int or not isinstance(codecs, list) or not isinstance(data, str):
        return None
    if not all(isinstance(each, str) for each in codecs):
        return None
    try:
        return Envelope(tuple(codecs), base64.b64decode(data, validate=True), version)
    except (binascii.Error, ValueError):
        return None


def read_envelope(text: str | None) -> Envelope | None:
    """The envelope that this JSON text is; None for any other text."""
    if text is None or not is_marked(text):
        return None
    try:
        return envelope_of(json.loads(text))
    except (ValueError, RecursionError):
        return None


def described(value: Any) -> str | None:
    """What a JSON value is that cannot be shown, since it is encoded; None for one that can."""
    envelope = envelope_of(value)
    return None if envelope is None else envelope.described


def described_start(text: str) -> str | None:
    """What the envelope is whose JSON text begins so; None for other text."""
    if not is_marked(text) or (found := _BY.search(text)) is None:
        return None
    try:
        codecs, _ = json.JSONDecoder().raw_decode(text, found.end())
    except ValueError:
        return None
    return Envelope(tuple(map(str, codecs)), b"").described if isinstance(codecs, list) else None


def _told(name: str, note: str) -> str:
    if name == "aes-gcm":
        return f"encrypted with key {shown(note)}"
    if name == "zlib":
        return "compressed"
    if name == "object":
        return f"kept in a store as {shown(note, 200)}"
    return f"encoded by {shown(name)}" + (f" ({shown(note)})" if note else "")
