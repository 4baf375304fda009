"""Values to JSON and back, by annotation; pydantic does the work.

What is encoded comes back: a value that JSON or jsonb cannot hold, that does not fit its
annotation, or that would come back as another one, is refused by an error that names what it is
part of, where in it, and what to do. Keys of dicts come back in jsonb's order (see `jsonb.py`).
"""

import json
import types
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from openworkflow.core.envelope import KEY, MARK, read_envelope
from openworkflow.core.errors import (
    ConfigurationError,
    InputValidationError,
    PayloadTooLarge,
    SerializationError,
)
from openworkflow.core.json_values import place, problem
from openworkflow.core.jsonb import (
    float_text,
    in_jsonb_order,
    loads_in_jsonb_order,
    shows_order,
    with_floats_kept,
)
from openworkflow.core.losses import Loss, change, conversion_loss, is_reordered
from openworkflow.core.shown import shown

T = TypeVar("T")

DEFAULT_PAYLOAD_LIMIT = 1_048_576
"""Bytes of JSON that one input or result may have."""
MOST_PAYLOAD_LIMIT = 268_435_456
"""About what PostgreSQL's jsonb holds: a larger value could only be sent in vain, again and again
where it is more than a message of the protocol may be."""

_SHORT = 256
_MARKED = len(MARK)
_SCALARS: frozenset[type] = frozenset({bool, int, str, float, type(None)})
_PLAIN = (Any, object, dict, list, dict[str, Any], list[Any], list[dict[str, Any]])
"""Annotations that promise nothing beyond JSON."""


class Codec(Generic[T]):
    """Turns values of one annotation into JSON text and back.

    Raises ConfigurationError for an annotation that cannot be understood.
    """

    __slots__ = ("_adapter", "_annotation", "_plain", "_scalars", "_shows_order", "_takes_none")

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        self._plain = annotation in _PLAIN
        self._adapter = self._make_adapter(annotation)
        self._scalars = _scalars_of(annotation)
        self._shows_order = shows_order(self._adapter.core_schema)

    @property
    def takes_none(self) -> bool:
        """Whether None fits the annotation."""
        return self._takes_none

    def encode(
        self, value: Any, what: str, limit: int = DEFAULT_PAYLOAD_LIMIT, name: str = ""
    ) -> str | None:
        """JSON text of `value`; None for None, which is stored as SQL NULL.

        Raises SerializationError or PayloadTooLarge (over `limit` bytes), whose messages begin
        with `what` and the quoted `name`.
        """
        if value is None and self._takes_none:
            return None
        kind = type(value)
        if (
            kind in self._scalars
            and (text := _scalar(kind, value)) is not None
            and len(text) <= limit
        ):
            return text
        if name:
            what = f"{what} {name!r}"
        encoded = self._dump_plain(value, what) if self._plain else self._dump(value, what)
        if len(encoded) > limit:
            raise PayloadTooLarge(what, len(encoded), limit)
        text = encoded.decode()
        if text[:_MARKED] == MARK and read_envelope(text) is not None:
            raise SerializationError(
                f"{what} has the form of an encoded value, which an object whose only key is "
                f"{KEY!r} is kept for; give it another key"
            )
        return text

    def as_replayed(self, value: Any, output: str | None) -> T:
        """What a replay decodes once jsonb has held `output`, which `encode` made of `value`.

        The first execution goes on with this, so that it decides as every replay will.
        """
        kind = type(value)
        if kind in self._scalars:
            return value + 0.0 if kind is float else value  # type: ignore[no-any-return]
        if self._plain and output is not None and "{" in output:
            return loads_in_jsonb_order(output)  # type: ignore[no-any-return]
        return self.decode(output)

    def decode(self, text: str | None, what: str | None = None) -> T:
        """The value of JSON text. Raises SerializationError if it does not fit the annotation.

        The message begins with `what` it is; without, it is something that was stored.
        """
        try:
            if text is None:
                result: T = self._adapter.validate_python(None)
            else:
                result = self._adapter.validate_json(text)
        except pydantic.ValidationError as error:
            if what is not None:
                raise self._misfit(what, error) from None
            raise SerializationError(
                f"a stored value does not fit {self._shown}: {_first(error)[1]}; was the "
                "annotation changed since?"
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
            path, message = _first(error, what)
            raise InputValidationError(message, path) from None
        return result

    @property
    def _shown(self) -> str:
        name = getattr(self._annotation, "__qualname__", None)
        return name if isinstance(self._annotation, type) and name else shown(self._annotation)

    def _make_adapter(self, annotation: Any) -> TypeAdapter[Any]:
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self._takes_none = _accepts_none(adapter)
            return adapter
        except pydantic.PydanticSchemaGenerationError:
            # A type pydantic does not know: its values are refused one by one, with their path.
            self._plain = self._takes_none = True
            return TypeAdapter(Any)
        except Exception as error:  # a type may make its own schema, or be text that is no type
            told = " ".join(str(getattr(error, "message", error)).split())  # without its address
            raise ConfigurationError(
                f"the annotation {self._shown} cannot be used: {told:.300}"
            ) from error

    def _dump_plain(self, value: Any, what: str) -> bytes:
        """JSON of plain data: looked through first, since a dump would convert what it can."""
        if (found := problem(value)) is not None:
            raise SerializationError(what + found)
        if self._annotation is not Any:
            try:
                self._adapter.validate_python(value)
            except pydantic.ValidationError as error:
                raise self._misfit(what, error) from None
        return with_floats_kept(to_json(value))

    def _dump(self, value: Any, what: str) -> bytes:
        """JSON by the annotation, read back once: what is stored must not fail a later replay."""
        try:
            encoded = self._adapter.dump_json(
                value, by_alias=True, round_trip=True, warnings="none"
            )
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise self._refusal(value, what, error) from None
        # NaN comes out as null, so only text that shows a null needs the closer look.
        if (b"null" in encoded or b"\\u0000" in encoded) and (found := self._problem(value)):
            raise SerializationError(what + found)
        encoded = with_floats_kept(encoded)
        try:
            if self._shows_order and b"{" in encoded:
                encoded = in_jsonb_order(encoded.decode()).encode()
        except (ValueError, RecursionError) as error:
            raise self._refusal(value, what, error) from None
        try:
            back = self._adapter.validate_json(encoded)
        except pydantic.ValidationError as error:
            raise self._misfit(what, error) from None
        if (loss := self._loss(value, back)) is not None:
            raise self._changed(what, loss)
        return encoded

    def _loss(self, value: Any, back: Any) -> Loss | None:
        """What of `value` is not in `back`, which the annotation made of its JSON."""
        if change(value, back) is None:
            return None
        try:
            converted = self._adapter.validate_python(value)
        except pydantic.ValidationError:
            converted = value
        return change(converted, back) or conversion_loss(value, converted)

    def _problem(self, value: Any) -> str | None:
        """The first NaN, NUL or surrogate inside models and dataclasses too."""
        try:
            inside = self._adapter.dump_python(value, warnings="none")
        except Exception:  # user-defined serializers raise what they like
            inside = value
        return problem(inside, typed=True)

    def _refusal(self, value: Any, what: str, error: Exception) -> SerializationError:
        found = self._problem(value) or problem(value)
        return SerializationError(
            what + found if found else f"{what} cannot be stored as JSON: {error}"
        )

    def _changed(self, what: str, loss: Loss) -> SerializationError:
        path, before, after = loss
        was, becomes = type(before).__qualname__, type(after).__qualname__
        change = f"another {becomes}" if was == becomes else f"{becomes} instead of {was}"
        if is_reordered(before, after):
            change = "an OrderedDict in another order (return a list of pairs)"
        if isinstance(after, Iterator):
            change = "an iterator, which can be read only once"
        return SerializationError(
            f"{what}{place(path)} would come back as {change}: the annotation {self._shown} does "
            "not keep it; annotate the function with exactly what it returns, or return data that "
            "JSON keeps"
        )

    def _misfit(self, what: str, error: pydantic.ValidationError) -> SerializationError:
        return SerializationError(f"{what} does not fit {self._shown}: {_first(error)[1]}")


def codec_for(annotation: Any) -> Codec[Any]:
    """The codec of an annotation; the same one each time.

    A plain function that returns an awaitable is annotated with it: what counts is its result.
    """
    if get_origin(annotation) in (Awaitable, Coroutine):
        annotation = get_args(annotation)[-1]
    try:
        # With its repr, since int | str equals str | int, but pydantic tries them in order.
        return _cached(annotation, repr(annotation))
    except Exception:  # unhashable, such as Annotated[..., [...]], or without a repr
        return Codec(annotation)


def codec_of(value: Any) -> Codec[Any]:
    """The codec of a value whose annotation is elsewhere, as that of a run started by name.

    A dataclass or a model says itself how it is written. All else has to be plain JSON.
    """
    told = is_dataclass(value) or isinstance(value, pydantic.BaseModel)
    return codec_for(type(value) if told else Any)


@lru_cache(maxsize=4096)
def _cached(annotation: Any, _shown: str) -> Codec[Any]:
    return Codec(annotation)


def _accepts_none(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(None)
    except pydantic.ValidationError:
        return False
    return True


def _scalar(kind: type, value: Any) -> str | None:
    """JSON text of a small scalar; None when it needs a closer look."""
    if kind is int:
        return str(value) if -(2**53) < value < 2**53 else None
    if kind is str:
        if len(value) > _SHORT or not value.isascii() or not value.isprintable():
            return None
        return None if '"' in value or "\\" in value else f'"{value}"'
    if kind is bool:
        return "true" if value else "false"
    return float_text(value) if kind is float and value - value == 0.0 else None


def _scalars_of(annotation: Any) -> frozenset[type]:
    """The scalar types whose values the annotation lets through, and reads back, as they are.

    A union must have no other members: UUID | str reads some text back as a UUID.
    """
    if annotation is Any or annotation is object:
        return _SCALARS
    alternatives = (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    scalars = [kind for kind in _SCALARS if kind in alternatives]
    return frozenset(scalars if len(scalars) == len(alternatives) else ())


def _first(error: pydantic.ValidationError, root: str = "") -> tuple[str, str]:
    """Path and message of the first problem; the value itself may be secret and is left out."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(part) for part in (root, *first["loc"]) if str(part))
    more = error.error_count() - 1
    shown = f"{path}: " if path else ""
    return path, f"{shown}{first['msg']}" + (f" (and {more} more)" if more else "")
