"""When a failed attempt is repeated, of a step or of a whole run.

The delay after attempt n is min(max_delay, initial * factor ** (n - 1)), shortened at random by up
to `jitter` of it, so that what failed together is not repeated together.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import ConfigurationError, NonRetryableError
from openworkflow.core.options import says_what_was_meant
from openworkflow.core.shown import shown


@says_what_was_meant(
    max_retries="max_attempts",
    retries="max_attempts",
    maximum_attempts="max_attempts",
    attempts="max_attempts",
    delay="initial",
    initial_interval="initial",
    interval_seconds="initial",
    countdown="initial",
    default_retry_delay="initial",
    retry_backoff="factor",
    retry_backoff_max="max_delay",
    retry_jitter="jitter",
    backoff="factor",
    backoff_rate="factor",
    backoff_coefficient="factor",
    maximum_interval="max_delay",
    non_retryable_error_types="non_retryable",
)
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how soon and for which errors. Raises ConfigurationError for impossible values."""

    max_attempts: int = 10
    """Counts the first attempt: 1 is no retry, 0 is no limit."""
    initial: Duration = timedelta(seconds=1)
    """The delay after the first failed attempt."""
    factor: float = 2.0
    """Each delay is the one before times this; at least 1."""
    max_delay: Duration = timedelta(seconds=100)
    """No delay is longer."""
    jitter: float = 0.2
    """The largest part of a delay that is taken off at random, from 0 to 1."""
    non_retryable: tuple[type[Exception], ...] = ()
    """Errors for which another attempt makes no sense, with their subclasses."""
    _initial_seconds: float = field(init=False, repr=False, compare=False)
    _max_seconds: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_count(self.max_attempts)
        _check_number("factor", self.factor, 1.0, 1e6)
        _check_number("jitter", self.jitter, 0.0, 1.0)
        object.__setattr__(self, "non_retryable", _error_types(self.non_retryable))
        initial = _length("initial", self.initial)
        longest = _length("max_delay", self.max_delay)
        if initial > longest:
            raise ConfigurationError(
                f"RetryPolicy: initial ({initial:g} s) is longer than max_delay ({longest:g} s); "
                "raise max_delay too"
            )
        object.__setattr__(self, "_initial_seconds", initial)
        object.__setattr__(self, "_max_seconds", longest)

    def delay(self, attempt: int, random: Callable[[], float] = random.random) -> timedelta:
        """How long to wait after failed attempt number `attempt` (from 1 on).

        `random` gives numbers from 0 to 1.
        """
        try:
            seconds = self._initial_seconds * self.factor ** max(0, attempt - 1)
        except OverflowError:
            seconds = self._max_seconds if self._initial_seconds else 0.0
        seconds = min(self._max_seconds, seconds)
        return timedelta(seconds=seconds * (1.0 - self.jitter * random()))

    def exhausted(self, attempt: int) -> bool:
        """Whether failed attempt number `attempt` was the last."""
        return 0 < self.max_attempts <= attempt

    def retries(self, error: BaseException) -> bool:
        """Whether another attempt may help against `error`; never raises."""
        try:
            return isinstance(error, Exception) and not isinstance(
                error, (NonRetryableError, *self.non_retryable)
            )
        except BaseException:  # what is asked is user code too, and would fail at each attempt
            return False


def check_policy(what: str, value: object) -> None:
    """Refuse at once what would fail when it is asked, at the first error."""
    if not isinstance(value, RetryPolicy):
        raise ConfigurationError(
            f"{what}: retry must be a RetryPolicy, such as RetryPolicy(max_attempts=3), "
            f"not {shown(value)}"
        )


def _check_count(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**31 - 1:
        raise ConfigurationError(
            f"RetryPolicy: max_attempts must be a whole number from 1, or 0 for no limit, "
            f"not {shown(value)}"
        )


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most  # no NaN is, and no number that is no float
    ):
        raise ConfigurationError(
            f"RetryPolicy: {name} must be a number from {least:g} to {most:g}, not {shown(value)}"
        )


def _length(name: str, value: Duration) -> float:
    try:
        return parse_duration(value).total_seconds()
    except ConfigurationError as error:
        raise ConfigurationError(f"RetryPolicy: {name}: {error}") from None


def _error_types(value: object) -> tuple[type[Exception], ...]:
    types = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    for each in types:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise ConfigurationError(
                f"RetryPolicy: non_retryable must be classes of exceptions, not {shown(each)}"
            )
    return types


DEFAULT_STEP_RETRY = RetryPolicy()
DEFAULT_WORKFLOW_RETRY = RetryPolicy(max_attempts=1)
"""A run is not repeated for an error outside its steps: that is most often a bug."""
