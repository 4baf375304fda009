"""Limits of workflows: how many runs at once, and how many in some time, for each key. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow.core.options import says_what_was_meant
from openworkflow.core.shown import shown

KEY_OF_LIMIT_LIMIT = 200
"""Characters of a limit's name, and of a key."""
MOST_LIMITS = 8
"""Limits of one workflow."""
MOST_SLOTS = 1_000_000
LONGEST_RATE_SECONDS = 1e9
"""What the table takes."""
SEPARATOR = "\x1f"
"""Between the name of a limit and a key."""
_TEXT_OF_RATE = re.compile(r"\s*\d+\s*(/|per\b)")
"""How other programs write a rate: taken for the name of a limit, it would limit nothing."""
JOINT = "\x1e"
"""Between the limits of a run, on their way to the database."""

Key = Callable[[Any], object]
"""What a limit counts for each of: given the input, text or what becomes text; None: no limit."""


@says_what_was_meant(max="slots", limit="slots", concurrency="slots", count="slots")
@dataclass(frozen=True, slots=True)
class Limit:
    """No more than `slots` runs are executed at once, for each key.

    A run that sleeps, or waits for a signal or its next attempt, has given its slot back. Workflows
    that name the same limit share it.
    """

    slots: int
    key: Key | None = None
    name: str | None = None


@says_what_was_meant(limit="count", max="count", period="per", interval="per", duration="per")
@dataclass(frozen=True, slots=True)
class Rate:
    """No more than `count` runs begin in `per`, for each key; what is more waits.

    They begin evenly, up to `burst` of them at once. A run counts once, when it begins.
    """

    count: int
    per: Duration = 1
    key: Key | None = None
    burst: int = 1
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """A limit as it is stored."""

    name: str
    slots: int | None = None
    """How many at once; None: any number."""
    rate: int | None = None
    rate_seconds: float | None = None
    """`rate` of them in so many seconds; None: any number."""
    burst: int | None = None
    """How many of these at once."""
    workflow_name: str | None = None
    """The workflow that has it for itself."""

    def __post_init__(self) -> None:
        limit_name(self.name)
        if self.slots is not None and not _is_count(self.slots, 0):
            raise ConfigurationError(
                f"limit {self.name!r}: slots are 0 to {MOST_SLOTS}, not {shown(self.slots)}"
            )
        if self.rate is None and self.rate_seconds is None:
            return
        if not _is_count(self.rate, 1) or not _is_count(self.burst, 1):
            raise ConfigurationError(
                f"limit {self.name!r}: the count of a rate, and its burst, are 1 to {MOST_SLOTS}, "
                f"not {shown(self.rate)} and {shown(self.burst)}"
            )
        if not self.rate_seconds:
            raise ConfigurationError(f"limit {self.name!r}: a rate is per some time, not 0 s")
        if self.rate_seconds >= LONGEST_RATE_SECONDS:
            raise ConfigurationError(
                f"limit {self.name!r}: a rate is per less than {LONGEST_RATE_SECONDS:g} s, "
                f"not {self.rate_seconds:g}"
            )


@dataclass(frozen=True, slots=True)
class StepRate:
    """At which rate a step is called."""

    name: str
    """The limit that says so."""
    rule: LimitRule | None
    """What the code says of it; None where it only names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWait:
    """A limit that a run waits for."""

    name: str
    key: str | None
    """None if the limit has one for all."""
    slots: int | None
    """How many at once; None: any number."""
    used: int
    is_full: bool
    """Whether it is this one that lets nobody begin now."""
    opens_at: datetime | None = None
    """When time alone lets the next begin."""
    paused_until: datetime | None = None
    """Until when nobody may begin, since somebody paused it."""
    holder: UUID | None = None
    """A run that has a slot of it: the one that was due first."""


class Limits:
    """The limits of one workflow; false if there are none."""

    def __init__(
        self, workflow: str, limits: Sequence[Limit] = (), rates: Rate | Sequence[Rate] = ()
    ) -> None:
        rates = (rates,) if isinstance(rates, Rate) else rates
        both: tuple[object, ...] = (limits, rates)
        for some in both:
            if isinstance(some, str) or not isinstance(some, Iterable):
                raise ConfigurationError(
                    f"workflow {workflow!r}: limits are a list of them, such as "
                    f"limits=[Limit(5)], not {shown(some)}"
                )
        given: list[Limit | Rate] = [*limits, *rates]
        if len(given) > MOST_LIMITS:
            raise ConfigurationError(f"workflow {workflow!r} has more than {MOST_LIMITS} limits")
        self._workflow = workflow
        self._keys: dict[str, Key | None] = {}
        self.rules: list[LimitRule] = []
        """What is stored of them."""
        for each in given:
            rule = _rule(workflow, each)
            if rule.name in self._keys:
                raise ConfigurationError(
                    f"workflow {workflow!r}: two of its limits are called {rule.name!r}; give one "
                    "another name: Limit(..., name=...)"
                )
            self._keys[rule.name] = each.key
            self.rules.append(rule)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def of(self, value: Any) -> str | None:
        """What a run with this input names, joined; None if none of the limits is for it.

        Raises ConfigurationError for a key that cannot be stored, or whose function raises.
        """
        named = []
        for name, function in self._keys.items():
            key = "" if function is None else self._called(name, function, value)
            if key is not None:
                named.append(name if function is None else f"{name}{SEPARATOR}{_key(name, key)}")
        return JOINT.join(named) or None

    def _called(self, name: str, function: Key, value: Any) -> object:
        try:
            return function(value)
        except Exception as error:
            raise ConfigurationError(
                f"workflow {self._workflow!r}: the key of limit {name!r} raised "
                f"{type(error).__name__}: {error}; it is called with the input of each run, so it "
                "has to have an answer for this one too: None, where the limit is not for it"
            ) from error


def step_rate(step: str, given: object) -> StepRate:
    """What `rate=` of a step means. Raises ConfigurationError."""
    if isinstance(given, str) and not _TEXT_OF_RATE.match(given):
        return StepRate(limit_name(given), None)
    if not isinstance(given, Rate) or given.name is None or given.key is not None:
        raise ConfigurationError(
            f"step {shown(step)}: rate is the name of a limit, or a Rate with a name and without a "
            f"key, such as Rate(20, per='1m', name='stripe'), not {shown(given)}"
        )
    return StepRate(given.name, _rule(step, given))


def pause_until(until: datetime | Duration) -> tuple[datetime | None, float | None]:
    """A moment, or a length in seconds. Raises ConfigurationError."""
    if not isinstance(until, datetime):
        return None, parse_duration(until).total_seconds()
    if until.tzinfo is None:
        raise ConfigurationError("until must carry a time zone, for example tzinfo=UTC")
    return until, None


def limit_name(name: object) -> str:
    """Return `name` if a limit can be called so. Raises ConfigurationError."""
    return storable_text("a limit's name", name, KEY_OF_LIMIT_LIMIT, printable=True)


def _rule(workflow: str, given: object) -> LimitRule:
    if not isinstance(given, Limit | Rate):
        raise ConfigurationError(
            f'workflow {workflow!r}: a limit is a Limit(5) or a Rate(20, per="1m"), '
            f"not {shown(given)}"
        )
    if given.key is not None and not callable(given.key):
        raise ConfigurationError(
            f"workflow {workflow!r}: the key of a limit is a function of the input, such as "
            f"lambda order: order.customer, not {shown(given.key)}"
        )
    suffix = ("/rate" if isinstance(given, Rate) else "") + ("/key" if given.key else "")
    name = f"{workflow}{suffix}" if given.name is None else given.name
    owner = workflow if given.name is None else None
    if isinstance(given, Limit):
        return LimitRule(name=name, slots=given.slots, workflow_name=owner)
    return LimitRule(
        name=name,
        rate=given.count,
        rate_seconds=parse_duration(given.per).total_seconds(),
        burst=given.burst,
        workflow_name=owner,
    )


def _key(name: str, key: object) -> str:
    text = str(key)
    if SEPARATOR in text or JOINT in text:
        raise ConfigurationError(f"limit {name!r}: a key has no U+001E or U+001F: {shown(text)}")
    return storable_text(f"the key of limit {name!r}", text, KEY_OF_LIMIT_LIMIT)


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MOST_SLOTS
