"""Keys that one run of a workflow has at a time, and calls that are put together into one. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import KEY_LIMIT, storable_text
from openworkflow.core.options import says_what_was_meant
from openworkflow.core.shown import shown

OnConflict = Literal["return", "reject", "replace", "cancel"]


@says_what_was_meant(conflict="on_conflict", mode="on_conflict", policy="on_conflict")
@dataclass(frozen=True, slots=True)
class Unique:
    """One unfinished run of the workflow for a key.

    A call that finds one gets that one (`return`), raises RunExists (`reject`), gives it the new
    input (`replace`) or cancels it and starts another (`cancel`). One that has begun takes no new
    input: then `replace` starts another, which has the key from then on.
    """

    key: str
    on_conflict: OnConflict = "return"


@says_what_was_meant(period="delay", wait="delay", timeout="max_wait")
@dataclass(frozen=True, slots=True)
class Debounce:
    """One run for all calls with a key that come within `delay` of each other, with the last input.

    It begins `delay` after the last call, and at most `max_wait` after the first.
    """

    key: str
    delay: Duration
    max_wait: Duration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueRule:
    """Either of them, checked."""

    key: str
    on_conflict: OnConflict = "return"
    delay: timedelta | None = None
    """What is debounced begins so long after the last call."""
    max_wait: timedelta | None = None

    @classmethod
    def of(cls, unique: object, debounce: object) -> "UniqueRule | None":
        """The rule of a call. Raises ConfigurationError."""
        if unique is not None and debounce is not None:
            raise ConfigurationError("give unique= or debounce=, not both")
        if debounce is not None:
            if not isinstance(debounce, Debounce):
                raise ConfigurationError(f'not a Debounce("key", "5s"): {shown(debounce)}')
            longest = debounce.max_wait
            return cls(
                key=storable_text("the key of debounce", debounce.key, KEY_LIMIT),
                on_conflict="replace",
                delay=parse_duration(debounce.delay),
                max_wait=None if longest is None else parse_duration(longest),
            )
        if unique is None:
            return None
        wanted = Unique(unique) if isinstance(unique, str) else unique
        if not isinstance(wanted, Unique) or wanted.on_conflict not in get_args(OnConflict):
            raise ConfigurationError(
                f"unique is a key, or Unique(key, on_conflict=...) with one of "
                f"{', '.join(get_args(OnConflict))}, not {shown(unique, 120)}"
            )
        key = storable_text("the key of unique", wanted.key, KEY_LIMIT)
        return cls(key=key, on_conflict=wanted.on_conflict)
