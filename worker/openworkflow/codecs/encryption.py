"""Encryption of values, by AES-256-GCM of the package `cryptography`."""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from openworkflow.codecs.protocol import Encoded, PayloadCodec, Place
from openworkflow.core.errors import CodecError, ConfigurationError
from openworkflow.core.extras import extra_missing
from openworkflow.core.shown import shown

KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Encryption(PayloadCodec):
    """Encrypts values with one of `keys`, and decrypts with any of them.

    Keys are 32 bytes, or those as base64 text, by id. `encrypt_with` is the id of the key for new
    values, by default the first; None only decrypts. A value is bound to the namespace, the kind of
    value and the name that it is stored under: put in another place it does not decrypt. Needs the
    extra `encryption`. Raises ConfigurationError.
    """

    name = "aes-gcm"

    def __init__(self, keys: Mapping[str, bytes | str], *, encrypt_with: str | None = "") -> None:
        given: object = keys
        if not isinstance(given, Mapping) or not given:
            raise ConfigurationError(
                "keys are bytes by id: Encryption({'2026-11': key}); Encryption.new_key() makes one"
            )
        self._keys = {key_id: _cipher(key_id, key) for key_id, key in keys.items()}
        self._current = next(iter(keys)) if encrypt_with == "" else encrypt_with
        if self._current is not None and self._current not in self._keys:
            raise ConfigurationError(
                f"encrypt_with is {shown(encrypt_with)}, which is none of the keys: {self._ids}"
            )

    @classmethod
    def from_text(cls, text: str | None) -> "Encryption":
        """Keys as `id:base64,id:base64`, as an environment variable has them; the first encrypts.

        Raises ConfigurationError, which does not show them.
        """
        keys: dict[str, str] = {}
        for each in (text or "").split(","):
            key_id, colon, key = each.strip().partition(":")
            if not colon or key_id in keys:
                raise ConfigurationError(
                    "keys are written id:base64 apart by commas, each id once, the one to encrypt "
                    "with first"
                )
            keys[key_id] = key
        return cls(keys)

    @staticmethod
    def new_key() -> str:
        """A new key, as base64 text."""
        return base64.b64encode(os.urandom(KEY_BYTES)).decode()

    def __repr__(self) -> str:
        return f"<Encryption with keys {self._ids}>"

    @property
    def _ids(self) -> str:
        return ", ".join(map(repr, self._keys))

    def encode(self, data: bytes, place: Place) -> Encoded | None:
        """See PayloadCodec."""
        if self._current is None:
            return None
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._keys[self._current]
        return Encoded(nonce + cipher.encrypt(nonce, data, _bound(place)), self._current)

    def decode(self, data: bytes, note: str, place: Place) -> bytes:
        """See PayloadCodec. Raises CodecError without the key, and for what was tampered with."""
        from cryptography.exceptions import InvalidTag

        cipher = self._keys.get(note)
        if cipher is None:
            raise CodecError(
                f"it is encrypted with key {shown(note)}, which this process has not (it has "
                f"{self._ids}); give it that key beside the others"
            )
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        try:
            value: bytes = cipher.decrypt(nonce, sealed, _bound(place))
        except (InvalidTag, ValueError):
            raise CodecError(
                f"it does not decrypt with key {shown(note)}: another key has this id here, or the "
                "value was changed, or written to another place, another namespace or name"
            ) from None
        return value


def _bound(place: Place) -> bytes:
    """What a value is bound to."""
    return json.dumps(list(place)).encode()


def _cipher(key_id: object, key: object) -> Any:
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise ConfigurationError(
            f"the id of a key is 1 to 64 letters, digits, dots, - and _, not {shown(key_id)}"
        )
    wrong = ConfigurationError(
        f"key {key_id!r} is not {KEY_BYTES} bytes, or base64 of these; Encryption.new_key() makes "
        "one"
    )
    try:
        raw = base64.b64decode(key, validate=True) if isinstance(key, str) else key
    except (binascii.Error, ValueError):
        raise wrong from None
    if not isinstance(raw, bytes) or len(raw) != KEY_BYTES:
        raise wrong
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise extra_missing("encryption", "encryption", error) from None
    return AESGCM(raw)
