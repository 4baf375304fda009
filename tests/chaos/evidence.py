"""What is known of a campaign, and the promises that it is held against.

Times of calls, cancels and faults are of the monotonic clock; those of rows are the database's, and
are compared with one another only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from tests.chaos.ledger import Call

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


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a run: the result of a step, by the workflow ("seen") or by the step ("work")."""

    job: str
    topic: str
    key: str
    token: str


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

    @property
    def rules(self) -> frozenset[str]:
        """The rules that were violated."""
        return frozenset(each.rule for each in self.violations)
