"""The values of one namespace on their way to the database and back, through its codecs.

A value is sealed before anything is flushed, and opened when it is loaded, so that what is between
(the engine, and whatever compares values) knows plain JSON only.
"""

import asyncio
import inspect
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from openworkflow.codecs.protocol import Encoded, PayloadCodec, Place
from openworkflow.core.envelope import (
    VERSION,
    Envelope,
    Opened,
    envelope_of,
    read_envelope,
)
from openworkflow.core.errors import (
    CodecError,
    ConfigurationError,
    PayloadTooLarge,
    PayloadUnreadable,
)
from openworkflow.core.jsonb import in_jsonb_order
from openworkflow.core.serialization import MOST_PAYLOAD_LIMIT
from openworkflow.core.shown import shown

Codecs = PayloadCodec | Sequence[PayloadCodec]
"""One codec, or several in the order in which they encode."""

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Between tries of a codec that fails, as one does whose store is away."""
ANSWER_SECONDS = 60.0
"""A codec that has not answered by then, as one does whose store swallows what it is sent, is not
asked again: each call of one that blocks would leave another thread behind."""
IN_THREAD_BYTES = 65_536
"""A larger value is encoded beside the event loop."""
_NAME = re.compile(r"[a-z0-9.-]{1,40}")
_DEFECTS = (TypeError, ValueError, AttributeError, LookupError)


class Payloads:
    """Seals and opens the values of a namespace. Without codecs it can open none.

    `limit` is the most bytes of JSON that are stored for one value.
    """

    def __init__(self, codecs: Sequence[PayloadCodec], namespace_id: str, limit: int) -> None:
        self.codecs, self.limit = tuple(codecs), limit
        self._namespace_id = namespace_id
        self._by_name = {codec.name: codec for codec in self.codecs}

    @property
    def seals(self) -> bool:
        """Whether there are codecs."""
        return bool(self.codecs)

    @property
    def plain_limit(self) -> int:
        """Bytes of JSON that a value may have before it is sealed."""
        return MOST_PAYLOAD_LIMIT if self.codecs else self.limit

    async def seal(
        self, text: str | None, kind: str, name: str = "", *, limited: bool = True
    ) -> str | None:
        """What is stored of a value; see Place for kind and name.

        Raises PayloadTooLarge, and CodecError where a codec could not encode it.
        """
        if text is None or not self.codecs:
            return text
        place = Place(self._namespace_id, kind, name)
        data, labels = _as_jsonb_has_it(text).encode(), list[str]()
        for codec in self.codecs:
            encoded = await _asked((Encoded, type(None)), codec.encode, data, place)
            if encoded is not None:
                data = encoded.data
                labels.append(f"{codec.name}:{encoded.note}" if encoded.note else codec.name)
        if labels:
            text = Envelope(tuple(labels), data).text()
        if limited and (size := len(text.encode())) > self.limit:
            raise PayloadTooLarge(place.shown, size, self.limit)
        return text

    async def open(
        self, text: str | None, kind: str, name: str = "", *, patient: bool = True
    ) -> str | None:
        """The plain JSON text of what is stored. Raises PayloadUnreadable.

        Unless it is to be `patient`, a codec that fails is not asked again.
        """
        envelope = read_envelope(text)
        if envelope is None or text is None:
            return text
        return Opened.of(await self._plain(envelope, kind, name, patient), text)

    async def open_value(self, value: Any, kind: str, name: str = "") -> Any:
        """Open a JSON value; a codec that fails is not asked again. Raises PayloadUnreadable."""
        envelope = envelope_of(value)
        if envelope is None:
            return value
        return json.loads(await self._plain(envelope, kind, name, patient=False))

    async def readable(self, value: Any, kind: str, name: str = "") -> Any:
        """Open a JSON value for people: the value itself, if it has no envelope to be opened."""
        try:
            return await self.open_value(value, kind, name)
        except PayloadUnreadable:
            return value

    async def _plain(self, envelope: Envelope, kind: str, name: str, patient: bool) -> str:
        place = Place(self._namespace_id, kind, name)
        if envelope.version != VERSION or not envelope.codecs:
            raise PayloadUnreadable(place.shown, f"it is {envelope.described}")
        data = envelope.data
        try:
            for label in reversed(envelope.codecs):
                codec, _, note = label.partition(":")
                decode = self._decoder(codec, envelope)
                data = await _asked((bytes,), decode, data, note, place, tries=patient)
            return data.decode()
        except UnicodeDecodeError:
            raise PayloadUnreadable(place.shown, "what its codecs made of it is no text") from None
        except CodecError as error:
            raise PayloadUnreadable(place.shown, str(error)) from error.__cause__

    def _decoder(self, name: str, envelope: Envelope) -> Callable[..., Any]:
        if (codec := self._by_name.get(name)) is not None:
            return codec.decode
        there = f"its codecs are {', '.join(self._by_name)}" if self.codecs else "it has no codec"
        raise CodecError(
            f"it is {envelope.described}, and this process has no codec {shown(name)}; {there}: "
            "give it the one that wrote the value (codec=, or OPENWORKFLOW_CODEC)"
        )


def _as_jsonb_has_it(text: str) -> str:
    """JSON text with keys in jsonb's order: a replay is to see what it would see without codecs."""
    try:
        return in_jsonb_order(text)
    except (ValueError, RecursionError):  # a number that Python does not read: nothing is lost
        return text


def checked_codecs(codec: object) -> tuple[PayloadCodec, ...]:
    """The codecs that are given as one or as several. Raises ConfigurationError."""
    if codec is None:
        return ()
    given: Any = codec if isinstance(codec, (list, tuple)) else [codec]
    for place, each in enumerate(given):
        name = getattr(each, "name", None)
        if not all(callable(getattr(each, method, None)) for method in ("encode", "decode")):
            raise ConfigurationError(
                f"codec is a codec or a list of them, such as [Compression(), Encryption(keys)], "
                f"not {shown(codec)}"
            )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"the name of a codec is lower-case letters, digits, dots and hyphens, up to 40, "
                f"not {shown(name)}"
            )
        if name in [other.name for other in given[:place]]:
            raise ConfigurationError(f"two codecs are called {name!r}; give one another name")
        if getattr(each, "is_last", False) and place < len(given) - 1:
            raise ConfigurationError(
                f"{name!r} has to be the last codec: what comes after it would not touch the "
                "values that it keeps elsewhere"
            )
    return tuple(given)


async def _asked(
    kinds: tuple[type, ...],
    method: Callable[..., Any],
    data: bytes,
    *rest: Any,
    tries: bool = True,
) -> Any:
    """What a codec answers; asked again while that may help. Raises CodecError."""
    for pause in (*(PAUSES_SECONDS if tries else ()), None):
        limit = asyncio.timeout(ANSWER_SECONDS)
        try:
            async with limit:
                return await _answer(kinds, method, data, *rest)
        except CodecError:
            raise
        except Exception as error:
            if limit.expired():
                raise CodecError(
                    f"its codec has not answered for {ANSWER_SECONDS:.0f} s"
                ) from error
            if pause is None or isinstance(error, _DEFECTS):
                raise CodecError(
                    f"its codec fails ({type(error).__name__}: {error!s:.200})"
                ) from error
            await asyncio.sleep(pause * random.uniform(0.75, 1.0))
    raise AssertionError


async def _answer(
    kinds: tuple[type, ...], method: Callable[..., Any], data: bytes, *rest: Any
) -> Any:
    if len(data) > IN_THREAD_BYTES and not inspect.iscoroutinefunction(method):
        answer = await asyncio.to_thread(method, data, *rest)
    else:
        answer = method(data, *rest)
    answer = await answer if inspect.isawaitable(answer) else answer
    if isinstance(answer, kinds):
        return answer
    raise TypeError(f"it answered with {type(answer).__name__}, not with bytes or Encoded")
