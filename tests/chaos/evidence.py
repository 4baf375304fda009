"""What is known of a campaign, and the promises that it is held against.

Times of calls, cancels and faults are of the monotonic clock; those of rows are the database's, and
are compared with one another only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from tests.chaos.ledger import Beat, Call

ENDS = "an accepted run ends exactly once, as meant"
CALLED = "a recorded step is never called again"
RESULTS = "a recorded result never changes"
RESTS = "a canceled run starts nothing more"
REPEATS = "a step is repeated for a reason"
ROWS = "the rows tell what happened"
FENCE = "a lost claim records nothing"
COUNTS = "counts are plausible"
WORKERS = "every worker lives"
CONNECTIONS = "connections come back"
INVARIANTS = "invariants hold"
TOGETHER = "a run exists if and only if the transaction that started it was committed"
BUILDS = "a pinned run stays with its build"
TOLD = "a run tells once, in order, and nothing but what is recorded"
SIGNALS = "a run takes its signals in order, each once"
KIN = "a child is started once for its step, and what it came to is what its parent got"
WINDOW = "no more children or calls of a map are under way than it says"
LIMITS = "no more runs of a limit's key are executed at once than it says"
RATES = "no more runs of a rate's key begin than it says"
UNDONE = "a run that does not end well undoes what it did, once, the last first"
OCCURRENCES = "each instant of a schedule has one run"
UNIQUE = "a key has one run at a time"
NEWEST = "the newest input of a key is not lost"
READ = "events are numbered without a gap, and read in order"
PAUSED = "nobody claims what is paused"
FORKED = "a fork keeps what came before, and does the rest itself"
REOPENED = "a retry from a step keeps what came before, and does the rest anew"

ENDED = ("succeeded", "failed", "canceled")


@dataclass(frozen=True, slots=True)
class Job:
    """A run that the client was told exists, and how it may end."""

    name: str
    ends: frozenset[str] = frozenset({"succeeded"})
    error: str | None = None
    """The type of the error that it is meant to fail with."""
    canceled_at: float | None = None
    """When the client was told that it is canceled."""
    may_lack: bool = False
    """Whether there may be no run of it: a child of a parent that may end before it starts it."""


@dataclass(frozen=True, slots=True)
class Run:
    """A row of workflow_runs."""

    job: str
    status: str
    generation: int = 0
    output: Mapping[str, str] | None = None
    error: str | None = None
    claim_no: int = 1
    attempts: int = 0
    crashes: int = 0
    build: str | None = None
    """The one that it is pinned to."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of step_attempts; `token` is its output, where it is a token."""

    job: str
    key: str
    status: str
    claim_no: int
    created_at: datetime
    completed_at: datetime | None = None
    token: str | None = None
    kind: str = "run"
    number: int | None = None
    """In which order its result reached the workflow."""
    can_be_undone: bool = False
    begun_in: int | None = None
    """The claim that began it, where a newer one has ended it or given it another number."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a run: the result of a step, by the workflow ("seen") or by the step ("work")."""

    job: str
    topic: str
    key: str
    token: str
    number: int | None = None
    """Of the event among all of its run; None where nobody has looked."""


@dataclass(frozen=True, slots=True)
class Kin:
    """A child: a row of workflow_children with its run's."""

    parent: str
    step: str
    """Which row has started it, and for a map which item."""
    job: str
    status: str
    priority: int = 0
    least_priority: int = 0
    """That of its parent."""
    map: str = ""
    """The row of the map that it is for."""
    open: tuple[datetime, datetime | None] | None = None
    """From when until when it was there and had not ended."""


@dataclass(frozen=True, slots=True)
class Group:
    """What may be under way at once: so many of the members, which are jobs, or calls of one job.

    `whole`: a run counts from its first step to its last, whether it executes one or waits.
    """

    name: str
    most: int
    whole: bool = False
    rule: str = LIMITS


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A run of a schedule."""

    schedule: str
    instant: datetime
    status: str


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that was forked from another, which had recorded the steps that it keeps."""

    job: str
    origin: str
    keeps: frozenset[str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the system; `pids` are the processes that it was done to."""

    kind: str
    begin: float
    end: float
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process that is over."""

    pid: int
    code: int
    expected: frozenset[int]
    """The codes that what we did to it explains; none if we did nothing."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a campaign."""

    lease: float
    jobs: Sequence[Job]
    calls: Sequence[Call]
    runs: Sequence[Run]
    rows: Sequence[Row] = ()
    faults: Sequence[Fault] = ()
    exits: Sequence[Exit] = ()
    changes: Sequence[str] = ()
    """What a trigger saw change although it was recorded for good, in words."""
    broken: Sequence[str] = ()
    """The invariants that the database's own check found broken, in words."""
    connections: int = 0
    """Those of workers that are left although no worker is."""
    orders: Set[str] = frozenset()
    """What callers stored in the transactions that started the runs of these names."""
    build_of: Mapping[int, str] = field(default_factory=dict)
    """The build of each process."""
    told: Sequence[Told] = ()
    """What runs have emitted, in the order of each run."""
    statuses: Mapping[str, str] = field(default_factory=dict)
    """By job: the status that it has set last."""
    ended: Mapping[str, float] = field(default_factory=dict)
    """By token: when a call was over, of those that say so."""
    beats: Mapping[int, Sequence[Beat]] = field(default_factory=dict)
    """By process: its heartbeats that were answered; one that is not there says nothing of them."""
    kin: Sequence[Kin] = ()
    windows: Mapping[str, int] = field(default_factory=dict)
    """By job: how many children of each of its maps may be open."""
    groups: Mapping[str, Sequence[Group]] = field(default_factory=dict)
    """By job: what it is a member of, or its calls are."""
    begun: Mapping[str, Sequence[datetime]] = field(default_factory=dict)
    """By key of a rate: when its runs began."""
    apart: float = 0.0
    """Seconds between two of them, at least."""
    occurrences: Sequence[Occurrence] = ()
    wanted: Sequence[tuple[str, datetime]] = ()
    """Schedules and instants that somebody was told are going to run."""
    newest: Mapping[str, int] = field(default_factory=dict)
    """By key: the number of the last call that was answered; its run is called KEY.NUMBER."""
    followed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By job: the numbers of its events, as somebody read them until it ended."""
    pauses: Sequence[tuple[str, int, int]] = ()
    """A job, and how often it had been claimed once it was paused and before it was resumed."""
    forks: Sequence[Fork] = ()
    reopened: Mapping[str, float] = field(default_factory=dict)
    """By job: when it was asked to go on from its second step."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    rule: str
    job: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker says."""

    violations: tuple[Violation, ...]
    excused: int = field(default=0)
    """Calls of recorded steps by processes that SIGSTOP had frozen as they began them."""
    starved: int = field(default=0)
    """Steps that were repeated since a busy machine had kept heartbeats back for a lease."""

    @property
    def rules(self) -> frozenset[str]:
        """The rules that were violated."""
        return frozenset(each.rule for each in self.violations)
