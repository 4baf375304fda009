"""An exception as data: stored as JSON, and raised again in its own type, here or elsewhere.

An error must always be storable, or its run could never end: text is cut and cleaned of what JSONB
refuses, and what has no JSON form is left out. Rebuilding imports nothing and runs no user
constructor: a row of the database cannot load or call code that the program has not loaded itself.
"""

import json
import re
import traceback
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Self

from openworkflow.core import error_parts, error_values, errors
from openworkflow.core.errors import OpenWorkflowError, StepFailed, WorkflowFailed
from openworkflow.core.jsonb import loads_in_jsonb_order, with_floats_kept

TEXT_LIMIT = 16_384
"""Characters kept of a message, of a traceback, and of the JSON of the arguments or attributes."""
CHAIN_LIMIT = 8
"""Causes kept of a chain of exceptions."""
UNKNOWN = "unknown"

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of an exception once it has left its process."""

    type: str
    """`module:QualifiedName` of its class."""
    message: str
    traceback: str = ""
    cause: "Failure | None" = None
    args: tuple[Any, ...] = ()
    """The exception's `args`; one without a JSON form is here as its repr."""
    state: dict[str, Any] = field(default_factory=dict)
    """The attributes that are plain JSON."""
    typed: dict[str, Any] = field(default_factory=dict)
    """Attributes and arguments that are not, as error_values writes them; arguments by "0", "1"."""

    @classmethod
    def from_exception(cls, error: BaseException) -> Self:
        """Describe `error` and its causes, as the database gives it back; never raises."""
        try:
            text = cls._describe(error, CHAIN_LIMIT).to_json()
            return cls.from_object(loads_in_jsonb_order(text))
        except BaseException:  # its own methods raise what they like, SystemExit too
            return cls(_type_name(error), "(the error cannot be described)")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; of anything else it keeps the text as the message."""
        try:
            return cls.from_object(json.loads(text))
        except (ValueError, RecursionError):
            return cls(UNKNOWN, _text(text))

    @classmethod
    def from_object(cls, value: Any) -> Self:
        """Read the decoded `error` column; accepts whatever other programs put there."""
        if not isinstance(value, dict):
            return cls(UNKNOWN, "" if value is None else _text(str(value)))
        cause, args, state = value.get("cause"), value.get("args"), value.get("state")
        typed = value.get("typed")
        return cls(
            type=_text(str(value.get("type") or value.get("name") or UNKNOWN)),
            message=_text(str(value.get("message") or "")),
            traceback=_tail(str(value.get("traceback") or value.get("stack") or "")),
            cause=cls.from_object(cause) if isinstance(cause, dict) else None,
            args=tuple(args) if isinstance(args, list) else (),
            state=state if isinstance(state, dict) else {},
            typed=typed if isinstance(typed, dict) else {},
        )

    def to_json(self) -> str:
        """The JSON text to store; always valid JSONB."""
        text = json.dumps(self._to_object(), ensure_ascii=False, separators=(",", ":"))
        return with_floats_kept(text.encode()).decode()

    @property
    def summary(self) -> str:
        """`ValueError: the message`, for people."""
        name = self.type.rpartition(":")[2].rpartition(".")[2]
        return f"{name}: {self.message}" if self.message else name

    @property
    def page(self) -> str | None:
        """Where the documentation says what an error of this package means, and what to do."""
        module, _, name = self.type.partition(":")
        found = getattr(errors, name, None) if module == errors.__name__ else None
        if not isinstance(found, type) or not issubclass(found, OpenWorkflowError):
            return None
        return f"docs/errors.md#{name.lower()}"

    def rebuild(self) -> Exception | None:
        """The exception in its own type, or None where that type is not loaded or cannot be made.

        The class's own `__init__` is not called; arguments and attributes are restored instead.
        """
        cls: type[Exception] | None = error_values.loaded(self.type, Exception)
        if cls is None:
            return None
        try:
            args, state = self._values()
            error = cls.__new__(cls, *args)
            if not isinstance(cls.__init__, FunctionType):
                cls.__init__(error, *args)  # built in: fills errno, name and the like
            error_parts.restore(error, args, state)
            if isinstance(error, StepFailed | WorkflowFailed):
                error.failure = self.cause or Failure(UNKNOWN, "")
            str(error)
        except BaseException:  # the class does not let itself be made: the caller gets None
            return None
        if self.cause is not None:
            error_parts.set_cause(error, self.cause.rebuild())
        return error

    def reraisable(self, step_name: str, attempts: int) -> Exception:
        """What to raise in the workflow: the error in its own type, else StepFailed.

        The same whether the step failed a moment ago or in an earlier execution.
        """
        error = self.rebuild()
        if error is None:
            return StepFailed(step_name, attempts, self)
        error_parts.add_note(error, f"in step {step_name!r}, attempt {attempts}")
        return error

    def _values(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and attributes; one that cannot be made here stays text, or away."""
        args, state = list(self.args), dict(self.state)
        for name, written in self.typed.items():
            try:
                value = error_values.read(written)
            except (ValueError, RecursionError):
                continue
            if not name.isdecimal():
                state[name] = value
            elif int(name) < len(args):
                args[int(name)] = value
        return tuple(args), state

    @classmethod
    def _describe(cls, error: BaseException, depth: int) -> Self:
        args = error.args
        if isinstance(error, OSError) and type(error).__reduce__ is OSError.__reduce__:
            args = error.__reduce__()[1]  # type: ignore[assignment]  # with the file's name
        return cls(
            type=_type_name(error),
            message=_message(error),
            traceback=_traceback(error),
            cause=cls._cause(error, depth - 1),
            args=_args(args),
            state=_state(error),
            typed=_typed(error, args),
        )

    @classmethod
    def _cause(cls, error: BaseException, depth: int) -> "Failure | None":
        if isinstance(error, StepFailed | WorkflowFailed) and hasattr(error, "failure"):
            return error.failure
        cause = error.__cause__
        if cause is None and not error.__suppress_context__:
            cause = error.__context__
        return None if cause is None or depth <= 0 else cls._describe(cause, depth)

    def _to_object(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "type": self.type,
            "message": self.message,
            "traceback": self.traceback,
        }
        if self.cause is not None:
            parts["cause"] = self.cause._to_object()
        if self.args:
            parts["args"] = list(self.args)
        if self.state:
            parts["state"] = self.state
        if self.typed:
            parts["typed"] = self.typed
        return _clean(parts)  # type: ignore[no-any-return]


def _type_name(error: BaseException) -> str:
    return _text(f"{type(error).__module__}:{type(error).__qualname__}")


def _message(error: BaseException) -> str:
    try:
        return _text(str(error))
    except Exception:
        return "(the error's own text cannot be made)"


def _traceback(error: BaseException) -> str:
    try:
        return _tail("".join(traceback.format_exception(error, chain=False)))
    except Exception:
        return ""


def _args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not error_parts.fits(args, TEXT_LIMIT):
        args = tuple(map(_short, args))
    kept = tuple(_json_part(arg, or_repr=True) for arg in args)
    return kept if len(json.dumps(kept)) <= TEXT_LIMIT else tuple(map(_short, kept))


def _short(value: Any) -> Any:
    kind = type(value)
    if issubclass(kind, str | bytes):
        return value[: TEXT_LIMIT // 8]
    return value if issubclass(kind, int | float) else None


def _state(error: BaseException) -> dict[str, Any]:
    state: dict[str, Any] = {}
    size = 0
    for name, value in error_parts.attributes(error).items():
        if name.startswith("__") and name != error_parts.NOTES:
            continue
        if not error_parts.fits(value, TEXT_LIMIT):
            continue
        try:
            part = _json_part(value, or_repr=False)
        except ValueError:
            continue
        size += len(name) + len(json.dumps(part))
        if size <= TEXT_LIMIT:
            state[_text(name)] = part
    return state


def _typed(error: BaseException, args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments, by place, and attributes that plain JSON does not hold, and that fit."""
    typed: dict[str, Any] = {}
    size = 0
    for name, value in [
        *((str(place), arg) for place, arg in enumerate(args)),
        *error_parts.attributes(error).items(),
    ]:
        written = None if name.startswith("__") else _written(value)
        if written is None:
            continue
        more = len(name) + len(json.dumps(written))
        if size + more <= TEXT_LIMIT:
            typed[_text(name)] = written
            size += more
    return typed


def _written(value: Any) -> Any:
    """A value that plain JSON does not hold, as JSON; None for others, and where there is none."""
    if not error_parts.fits(value, TEXT_LIMIT):
        return None
    try:
        written = _clean(error_values.write(value))
        text = json.dumps(written, allow_nan=False)
    except Exception:  # its own methods raise what they like
        return None
    return None if text == _plain(value) else written


def _plain(value: Any) -> str | None:
    try:
        return json.dumps(_clean(value), allow_nan=False)
    except Exception:
        return None


def _json_part(value: Any, *, or_repr: bool) -> Any:
    """`value` as it comes back from JSON. Raises ValueError, unless its repr may take its place."""
    try:
        return _clean(json.loads(json.dumps(value, allow_nan=False)))
    except Exception as error:
        if not or_repr:
            raise ValueError from error
    try:
        return _text(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {_clean(str(key)): _clean(each) for key, each in value.items()}
        case list() | tuple():
            return [_clean(each) for each in value]
        case _:
            return value


def _text(text: str) -> str:
    """The beginning: where a message says what happened."""
    cut = text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
    return _UNSTORABLE.sub("\ufffd", cut)


def _tail(text: str) -> str:
    """The end: where a traceback says what happened."""
    cut = text if len(text) <= TEXT_LIMIT else "…" + text[1 - TEXT_LIMIT :]
    return _UNSTORABLE.sub("\ufffd", cut)
