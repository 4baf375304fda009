"""Values to JSON and back, by annotation; pydantic does the work.

What JSON or PostgreSQL's jsonb cannot hold (NaN, NUL characters, lone surrogates, other objects) is
refused by an error that names what it is part of, where in it, and what to do.
"""

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

import pydantic
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from openworkflow.core.errors import InputValidationError, PayloadTooLarge, SerializationError

T = TypeVar("T")

DEFAULT_PAYLOAD_LIMIT = 1_048_576
"""Bytes of JSON that one input or result may have."""
_SHORT = 64


class Codec(Generic[T]):
    """Turns values of one annotation into JSON text and back."""

    __slots__ = ("_adapter", "_annotation")

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        except pydantic.PydanticSchemaGenerationError:
            # A type pydantic does not know: its values are refused one by one, with their path.
            self._adapter = TypeAdapter(Any)

    def encode(self, value: Any, what: str, limit: int = DEFAULT_PAYLOAD_LIMIT) -> str | None:
        """JSON text of `value`; None for None, which is stored as SQL NULL.

        Raises SerializationError or PayloadTooLarge (over `limit` bytes), whose messages begin
        with `what`.
        """
        if value is None:
            return None
        kind = type(value)
        if kind is bool:
            return "true" if value else "false"
        if kind is int and -(2**53) < value < 2**53:
            return str(value)
        if kind is str and len(value) < _SHORT and value.isascii() and value.isalnum():
            return f'"{value}"'
        text = self._dump(value, what)
        if len(text) > limit:
            raise PayloadTooLarge(what, len(text), limit)
        return text.decode()

    def decode(self, text: str | None) -> T:
        """The value of JSON text. Raises SerializationError if it does not fit the annotation."""
        try:
            if text is None:
                result: T = self._adapter.validate_python(None)
            else:
                result = self._adapter.validate_json(text)
        except pydantic.ValidationError as error:
            raise SerializationError(
                f"stored JSON does not fit {self._annotation!r}: {_first(error)}"
            ) from None
        return result

    def validate_stored(self, value: Any) -> T:
        """The value of JSON that is decoded already. Raises as `decode` does."""
        return self.decode(None if value is None else json.dumps(value))

    def validate(self, value: Any, what: str) -> T:
        """`value`, or what its JSON shape stands for. Raises InputValidationError with the path."""
        try:
            result: T = self._adapter.validate_python(value)
        except pydantic.ValidationError as error:
            raise InputValidationError(f"{_first(error, what)}") from None
        return result

    def _dump(self, value: Any, what: str) -> bytes:
        try:
            text = self._adapter.dump_json(value, warnings="none")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise self._refusal(value, what, error) from None
        # NaN comes out as null, so only values that show a null need the closer look.
        if b"null" in text or b"\\u0000" in text:
            if problem := next(_problems(value), None):
                raise SerializationError(f"{what}{problem}")
            if _has_nul(json.loads(text)):
                raise SerializationError(f"{what} holds a NUL character, which PostgreSQL refuses")
        return text

    def _refusal(self, value: Any, what: str, error: Exception) -> SerializationError:
        problem = next(_problems(value), None)
        return SerializationError(
            f"{what}{problem}" if problem else f"{what} cannot be stored as JSON: {error}"
        )


@lru_cache(maxsize=4096)
def _cached(annotation: Any) -> Codec[Any]:
    return Codec(annotation)


def codec_for(annotation: Any) -> Codec[Any]:
    """The codec of an annotation; the same one each time."""
    try:
        return _cached(annotation)
    except TypeError:  # unhashable, such as Annotated[..., [...]]
        return Codec(annotation)


def _first(error: pydantic.ValidationError, root: str = "") -> str:
    """The first problem with its path; the value itself may be secret and is left out."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in (root, *first["loc"]) if str(part))
    more = error.error_count() - 1
    return f"{path}: {first['msg']}" + (f" (and {more} more)" if more else "")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(k) or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _problems(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """What in `value` JSON cannot hold, each as `.path problem`."""
    where = f" at {path.lstrip('.')}" if path else ""
    if depth > 200:
        yield f"{where} is nested too deeply, or contains itself"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, which JSON cannot hold; use None, or a string"
    elif isinstance(value, str):
        yield from _text_problems(value, where)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _problems(key, f"{path}.{key!r}", depth + 1)
            yield from _problems(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _problems(item, f"{path}.{index}", depth + 1)
    elif isinstance(value, pydantic.BaseModel) or hasattr(value, "__dataclass_fields__"):
        fields = getattr(value, "__dataclass_fields__", None) or type(value).model_fields  # type: ignore[attr-defined]
        for name in fields:
            yield from _problems(getattr(value, name, None), f"{path}.{name}", depth + 1)
    elif not _dumps(value):
        yield (
            f"{where} is of type {type(value).__qualname__}, which JSON cannot hold; return a "
            "dataclass, a pydantic model or plain data instead"
        )


def _text_problems(value: str, where: str) -> Iterator[str]:
    if "\0" in value:
        yield f"{where} holds a NUL character, which PostgreSQL's JSON refuses; remove it"
    try:
        value.encode()
    except UnicodeEncodeError:
        yield f"{where} holds a lone surrogate, which is not Unicode text; decode it properly first"


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def _dumps(value: Any) -> bool:
    try:
        _ANYTHING.dump_json(value)
    except (PydanticSerializationError, ValueError):
        return False
    return True
