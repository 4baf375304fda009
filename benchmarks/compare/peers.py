"""Who is compared: one table of names, pinned versions, settings and where the advice is from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.workloads import Workload

Form = Literal["single", "concurrent", "batch"]


@dataclass(frozen=True, slots=True)
class Contender:
    """What is known of one before anything is installed."""

    name: str
    kind: Literal["durable", "job queue"]
    driver: str
    """The module in `benchmarks.compare.drivers`, or its file there if it is not Python."""
    packages: tuple[str, ...]
    """Pinned, as the installer takes them; none: the environment of this repository."""
    installer: Literal["none", "pip", "npm"]
    settings: str
    advice: str
    """Where the settings are from."""
    slower: int
    """Divides the runs, so that all take about as long."""
    unfinished: str
    """Whether any run is left to do, as one boolean."""
    finished: str
    """How many runs have ended well."""
    batches: bool = False
    """Whether it has a call that enqueues many."""
    workloads: tuple[Workload, ...] = field(default=tuple(Workload))
    python: tuple[int, int] = (3, 11)
    """The oldest Python that it runs on."""

    @property
    def forms(self) -> tuple[Form, ...]:
        """Forms of enqueueing that there are."""
        return ("single", "concurrent", "batch") if self.batches else ("single", "concurrent")

    def share(self, runs: int) -> int:
        """A part of that many runs, at least one."""
        return max(1, runs // self.slower)


OURS = Contender(
    name="ours",
    kind="durable",
    driver="ours_peer",
    packages=(),
    installer="none",
    settings="one process, 1,000 slots, uvloop",
    advice="benchmarks/ours.py",
    slower=1,
    unfinished=(
        "SELECT EXISTS (SELECT FROM workflow_runs WHERE status = 'running')"
        " OR EXISTS (SELECT FROM workflow_runs WHERE status = 'pending')"
    ),
    finished="SELECT count(*) FROM workflow_runs WHERE status = 'succeeded'",
    batches=True,
)

DBOS = Contender(
    name="dbos",
    kind="durable",
    driver="dbos_peer",
    packages=("dbos==3.4.0", "SQLAlchemy==2.1.9", "psycopg[binary]==3.3.9"),
    installer="pip",
    settings=(
        "one process; asynchronous workflows and steps; a queue with worker_concurrency 50 and"
        " polling_interval_sec 0.02 (default 1); pool of 20; result asked for each 0.02 s"
    ),
    advice=(
        "docs.dbos.dev/python/tutorials/queue-tutorial (a limit for each worker rather than"
        " a global one) and /python/reference/queues (polling_interval_sec)"
    ),
    slower=40,
    unfinished="SELECT EXISTS (SELECT FROM dbos.workflow_status WHERE status <> 'SUCCESS')",
    finished="SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
)

ABSURD = Contender(
    name="absurd",
    kind="durable",
    driver="absurd_peer",
    packages=("absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]==3.3.9"),
    installer="pip",
    settings=(
        "one process, asynchronous client, concurrency 50, poll_interval 0.01 (default 0.25);"
        " callers share 10 clients, since a client has one connection"
    ),
    advice="start_worker in the SDK's reference; no page on tuning was found",
    slower=20,
    unfinished="SELECT EXISTS (SELECT FROM absurd.t_default WHERE state <> 'completed')",
    finished="SELECT count(*) FROM absurd.t_default WHERE state = 'completed'",
)

OPENWORKFLOW_TS = Contender(
    name="openworkflow-ts",
    kind="durable",
    driver="openworkflow_peer.mjs",
    packages=("openworkflow@0.10.1", "postgres@3.4.9"),
    installer="npm",
    settings="one process, concurrency 100, pool of its own; result asked for each second, fixed",
    advice=(
        "openworkflow.dev/docs/workers and /docs/production: start with 10, and tune;"
        " 100 is what its own benchmark has"
    ),
    slower=20,
    unfinished=(
        "SELECT EXISTS (SELECT FROM openworkflow.workflow_runs"
        " WHERE status NOT IN ('completed', 'succeeded'))"
    ),
    finished=(
        "SELECT count(*) FROM openworkflow.workflow_runs WHERE status IN ('completed', 'succeeded')"
    ),
)

PROCRASTINATE = Contender(
    name="procrastinate",
    kind="job queue",
    driver="procrastinate_peer",
    packages=("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
    installer="pip",
    settings="one process, asynchronous tasks, concurrency 30, a pool of as many connections",
    advice="procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html",
    slower=20,
    unfinished="SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status <> 'succeeded')",
    finished="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
    batches=True,
    workloads=(Workload.ONE_STEP,),
)

PGQUEUER = Contender(
    name="pgqueuer",
    kind="job queue",
    driver="pgqueuer_peer",
    packages=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    installer="pip",
    settings=(
        "one process, five managers with a connection each, batch_size 100, uvloop;"
        " durable tables, its default"
    ),
    advice=(
        "janbjorge.github.io/pgqueuer/guides/performance-tuning (a larger batch_size for short"
        " jobs, a pool for callers); five managers as in its own benchmark"
    ),
    slower=2,
    unfinished="SELECT EXISTS (SELECT FROM pgqueuer)",
    finished="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
    batches=True,
    workloads=(Workload.ONE_STEP,),
)

OBAN = Contender(
    name="oban",
    kind="job queue",
    driver="oban_peer",
    packages=("oban==0.7.0", "psycopg[binary,pool]==3.3.9", "uvloop==0.23.0"),
    installer="pip",
    settings=(
        "its port to Python, on Python 3.12 or newer: one process, a queue with limit 250"
        " (default 10), a pool of 20, uvloop"
    ),
    advice="the reference of its class Oban; its command runs on uvloop; limit by a sweep",
    slower=4,
    unfinished="SELECT EXISTS (SELECT FROM oban_jobs WHERE state <> 'completed')",
    finished="SELECT count(*) FROM oban_jobs WHERE state = 'completed'",
    batches=True,
    workloads=(Workload.ONE_STEP,),
    python=(3, 12),
)

CONTENDERS = (OURS, DBOS, ABSURD, OPENWORKFLOW_TS, PROCRASTINATE, PGQUEUER, OBAN)

#: Peers that no code here installs, each with the reason.
NEVER_TRIED = {
    "oban for Elixir": (
        "its packages are on hex.pm, for which this command has no installer, and Debian 12's"
        " Elixir (1.14) is older than it asks for; its port to Python is compared"
    )
}


def find(name: str) -> Contender:
    """The contender of that name; KeyError if there is none."""
    return next(contender for contender in CONTENDERS if contender.name == name)
