"""What the executions of one worker have in common, and what each is given of the worker."""

import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from openworkflow.backend.records import Delivery, Outgoing, Waiting
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.limits import LimitRule, StepRate
from openworkflow.core.progress import DEFAULT_MAX_EVENTS
from openworkflow.core.recorded import Awaited, MapItem
from openworkflow.core.step_attempt import DEFAULT_MAX_STEP_ATTEMPTS
from openworkflow.core.workflow_run import DEFAULT_REST_SECONDS
from openworkflow.engine import generators
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.journal import Journal
from openworkflow.engine.library import Library, nothing_told
from openworkflow.engine.mail import Family, Mail
from openworkflow.engine.threads import Threads
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.seam import Observer

NO_LIMIT = sys.maxsize
"""More than a run can do: a step compares with one number, whether there is a limit or not."""


def stays_nowhere(*_: object) -> bool:
    """For executions that do not outlast their claims."""
    return False


class NoPost:
    """For replays, which read nothing."""

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        """See Post."""
        return {}

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        """See Post."""
        return set()

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        """See Post."""
        return {}

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        """See Post."""
        return set()

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """See Post."""
        return {}


def no_sender(*_: Any) -> Any:
    """For replays, which send nothing."""
    raise AssertionError("a replay sends nothing")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may do; 0 is no limit."""

    max_attempts: int = DEFAULT_MAX_STEP_ATTEMPTS
    """Step attempts of a run."""
    max_events: int = DEFAULT_MAX_EVENTS
    """Events that it emits."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all executions of a worker share."""

    journal: Journal
    metrics: Metrics
    step_threads: Threads
    workflow_threads: Threads
    payload_limit: int
    guard: LeaseGuard = field(default_factory=LeaseGuard)
    limits: Limits = Limits()
    rest_seconds: float = DEFAULT_REST_SECONDS
    mail: Mail = field(default_factory=lambda: Mail(NoPost()))
    send: Callable[[Outgoing], Awaitable[UUID]] = no_sender
    """Sends a signal; raises RunNotFound and InvalidRunState."""
    library: Library = field(default_factory=lambda: Library(nothing_told))
    cancel: Callable[[UUID], Awaitable[object]] = no_sender
    """Cancels a run; raises as `send`."""
    take_turn: Callable[[StepRate, UUID, str], Awaitable[datetime | None]] = no_sender
    """When a step of this run may begin at its rate, to be asked again then; None for now."""
    pause_limit: Callable[[str, datetime | None, float | None], Awaitable[object]] = no_sender
    """Has nothing of a limit begin until then, or for so many seconds."""
    read_map: Callable[[UUID, int, int], Awaitable[list[MapItem]]] = no_sender
    """What the children of a map came to, so many from an item on."""
    ensure_limits: Callable[[Sequence[LimitRule]], Awaitable[None]] = no_sender
    """Has these limits be there, before the first run that names them."""
    payloads: Payloads | None = None
    """Seals what is stored; None where the worker has no codec."""
    observer: Observer | None = None
    """Is told of executions, steps and waits; None where nobody observes."""
    park: Callable[[Any, datetime | None], bool] = stays_nowhere
    """Parks the run of an execution, which stays in memory, until then; False if it may not."""
    thread: int = field(init=False, default_factory=threading.get_ident)
    """Where the loop runs that all of them are executed on, and that these are made in."""

    def __post_init__(self) -> None:
        generators.watch()
