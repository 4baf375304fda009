"""Large values kept in a store of objects, of which the database has the names."""

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from openworkflow.codecs.protocol import Encoded, PayloadCodec, Place
from openworkflow.core.errors import CodecError, ConfigurationError
from openworkflow.core.ids import uuid7
from openworkflow.core.shown import shown

OVER_BYTES = 262_144
LONGEST_FOLDER = 200
"""File systems take 255 bytes; a longer name is replaced by its digest."""
_PART = re.compile(r"[A-Za-z0-9%_~-][A-Za-z0-9%_.~-]*")


class ObjectStore(Protocol):
    """Where objects are kept; both methods may be async, others are called in a thread.

    Names are made of letters, digits, `%-_.~` and slashes, and none is used twice.
    """

    def put(self, name: str, data: bytes) -> object:
        """Keep an object; it is durable once this returns."""

    def get(self, name: str) -> bytes | Awaitable[bytes]:
        """An object. Raises LookupError or FileNotFoundError if it is not there."""


class Offload(PayloadCodec):
    """Keeps values of more than `over` bytes in a store; with None it only fetches them.

    The last of the codecs. Each value is an object of its own, `<namespace>/<hex of a UUID>`, whose
    first digits are the time. Nothing here deletes any: see docs/codecs.md. A second store needs
    another `name`. Raises ConfigurationError.
    """

    name: str = "object"
    is_last = True

    def __init__(
        self, store: ObjectStore, *, over: int | None = OVER_BYTES, name: str = "object"
    ) -> None:
        if not callable(getattr(store, "put", None)) or not callable(getattr(store, "get", None)):
            raise ConfigurationError(f"a store has methods put and get, not so {shown(store)}")
        if over is not None and (type(over) is not int or over < 0):
            raise ConfigurationError(f"over is a number of bytes, or None, not {shown(over)}")
        self._store, self._over, self.name = store, over, name

    async def encode(self, data: bytes, place: Place) -> Encoded | None:
        """See PayloadCodec."""
        if self._over is None or len(data) <= self._over:
            return None
        name = f"{_folder(place.namespace)}/{uuid7().hex}"
        await _asked(self._store.put, name, data)
        return Encoded(b"", name)

    async def decode(self, data: bytes, note: str, place: Place) -> bytes:
        """See PayloadCodec. Raises CodecError for an object that is gone."""
        try:
            found: bytes = await _asked(self._store.get, checked_name(note))
        except (LookupError, FileNotFoundError):
            raise CodecError(
                f"its object {shown(note, 200)} is not in the store: was it deleted, or is this "
                "another store?"
            ) from None
        return found


class DirectoryStore:
    """Objects as files of a folder, which all workers and clients share."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def __repr__(self) -> str:
        return f"<DirectoryStore {str(self._folder)!r}>"

    def put(self, name: str, data: bytes) -> None:
        """See ObjectStore: a file is there whole, or not."""
        path = self._folder / checked_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{uuid7().hex}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def get(self, name: str) -> bytes:
        """See ObjectStore."""
        return (self._folder / checked_name(name)).read_bytes()


def checked_name(name: str) -> str:
    """Refuse what is no name of an object: whoever writes to the database may have written it.

    Raises CodecError.
    """
    if name and all(_PART.fullmatch(part) for part in name.split("/")):
        return name
    raise CodecError(f"{shown(name)} is no name of an object that was stored here")


def _folder(namespace: str) -> str:
    """What objects of a namespace begin with: its name, in letters that every store takes."""
    name = quote(namespace, safe="").replace(".", "%2E")
    return name if len(name) <= LONGEST_FOLDER else sha256(namespace.encode()).hexdigest()


async def _asked(method: Any, *arguments: Any) -> Any:
    """What a method of a store answers, that is async or blocks."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    answer = await asyncio.to_thread(method, *arguments)
    return await answer if inspect.isawaitable(answer) else answer
