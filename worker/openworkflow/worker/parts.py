"""The parts of a started worker, each made of those before it.

    slots, guard -> claimer -> journal, flusher -> services, poller -> executor -> heartbeat

What points the other way is data, not a part: the claimer keeps what it claimed until the executor
asks for it, and slots that fall free until somebody looks.
"""

from datetime import datetime, timedelta

from openworkflow.backend.backend import BackendPostgres, WorkerSession
from openworkflow.core.registry import Registry
from openworkflow.engine.flusher import Flusher
from openworkflow.engine.guard import LeaseGuard
from openworkflow.engine.journal import DatabaseClock, Journal
from openworkflow.engine.library import Library
from openworkflow.engine.mail import Mail
from openworkflow.engine.services import Limits, Services
from openworkflow.engine.threads import Threads
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.seam import Observer
from openworkflow.telemetry.tracing import observer_of
from openworkflow.worker.claimer import Claimer
from openworkflow.worker.elsewhere import Elsewhere
from openworkflow.worker.executor import Executor
from openworkflow.worker.heartbeat import Heartbeat
from openworkflow.worker.histories import Histories
from openworkflow.worker.limited import adopter, declared_limits
from openworkflow.worker.occurrences import Occurrences
from openworkflow.worker.opened import OpenedMail, opened_maps
from openworkflow.worker.options import WorkerOptions
from openworkflow.worker.poller import Poller


class Pools:
    """The threads for sync functions of a worker with so many slots."""

    def __init__(self, slots: int) -> None:
        self.steps = Threads(slots, "openworkflow-step")
        # A sync workflow keeps its thread while it rests, so there are as many again; else one that
        # waits for a slot and one that waits for a thread would wait for each other.
        self.workflows = Threads(2 * slots, "openworkflow-workflow", slots)

    @property
    def left_behind(self) -> int:
        """Threads inside functions that nobody waits for any more."""
        return self.steps.left_behind + self.workflows.left_behind

    @property
    def exhausted(self) -> bool:
        """Whether the next thread left behind will not be replaced."""
        return self.steps.exhausted or self.workflows.exhausted

    @property
    def starved(self) -> bool:
        """Whether sync functions called now would never start."""
        return self.steps.starved or self.workflows.starved

    def obstacle(self) -> str | None:
        """Why no run should be claimed that may need a thread; None if there is no such reason."""
        for what, threads in (("steps", self.steps), ("workflows", self.workflows)):
            if threads.exhausted:
                return (
                    f"{threads.left_behind} threads are held by sync {what} that do not return, "
                    f"and no more than {threads.spare} are replaced; restart the worker"
                )
        return None

    def close(self) -> None:
        """End the idle threads; those left behind end with the process, or by themselves."""
        self.steps.close()
        self.workflows.close()


class Parts:
    """Everything that runs in a started worker; nothing of it runs yet."""

    executor_of: type[Executor] = Executor

    def __init__(
        self,
        worker_id: str,
        options: WorkerOptions,
        registry: Registry,
        backend: BackendPostgres,
        session: WorkerSession,
        metrics: Metrics,
        now: datetime,
    ) -> None:
        slots, lease, clock = options.concurrency, options.lease, DatabaseClock(now)
        self.metrics, self.pools, self.journal = metrics, Pools(slots), Journal(clock)
        self.guard, self.library = LeaseGuard(lease.total_seconds()), Library(session.read_told)
        observer = observer_of(backend.namespace_id, options.traces)
        wanted = options.claim_request(registry, traced=observer is not None)
        self.claimer = Claimer(wanted, slots, self.guard, metrics, obstacle=self.obstacle)
        self.flusher = Flusher(
            *(self.journal, session, self.claimer, metrics),
            worker_id=worker_id,
            lease=lease,
            batch=options.batch,
        )
        self.payloads = options.payloads(backend.namespace_id)
        self.mail = Mail(session, OpenedMail(self.payloads))
        self.poller = Poller(backend, clock, self.claimer, self.journal.kick)
        self.executor = self.executor_of(
            registry,
            Histories(session, metrics, self.payloads),
            self.claimer,
            self.poller,
            self._services(options, backend, observer),
            namespace_id=backend.namespace_id,
            max_crashes=options.max_crashes,
            doubt=self.flusher.strays.doubt,
            occurrences=self._occurrences(backend, worker_id, registry),
            adopt=adopter(backend.limits, declared_limits(registry), worker_id),
            most_resident=options.resident,
        )
        place = Elsewhere(self.claimer, self.executor, self.flusher.strays.doubt)
        self.heartbeat = self._heartbeat(backend, worker_id, lease, place.watch(session, worker_id))

    def _occurrences(
        self, backend: BackendPostgres, worker_id: str, registry: Registry
    ) -> Occurrences:
        schedules, stop = backend.schedules, backend.cancel_workflow_run
        return Occurrences(schedules, stop, worker_id, registry, self.metrics)

    def obstacle(self) -> str | None:
        """Why this worker claims nothing for now, in words for people; None if it may claim."""
        if not self.guard.stands:
            return f"no heartbeat reached the database for {self.guard.age:.0f} s"
        return self.pools.obstacle()

    def trouble(self) -> str | None:
        """Why this worker gets no work done for now, in words for people; None if it does."""
        return self.obstacle() or self.flusher.trouble

    def measure(self) -> None:
        """Report the gauges."""
        self.metrics.fold()
        slots = self.claimer.slots
        self.metrics.slots(slots.used, slots.count, slots.resting)
        self.metrics.resident(len(self.executor.residents))
        self.metrics.threads_left_behind(self.pools.left_behind)

    def _services(
        self, options: WorkerOptions, backend: BackendPostgres, observer: Observer | None
    ) -> Services:
        return Services(
            self.journal,
            self.metrics,
            self.pools.steps,
            self.pools.workflows,
            self.payloads.plain_limit,
            self.guard,
            Limits(options.max_step_attempts),
            options.rest.total_seconds(),
            self.mail,
            backend.messages.send,
            self.library,
            backend.cancel_workflow_run,
            backend.limits.turns.take,
            backend.limits.turns.pause,
            opened_maps(backend.families.read_map, self.payloads),
            backend.limits.ensure,
            self.payloads if self.payloads.seals else None,
            observer,
        )

    def _heartbeat(
        self, backend: BackendPostgres, worker_id: str, lease: timedelta, elsewhere: Elsewhere
    ) -> Heartbeat:
        return Heartbeat(
            backend,
            worker_id,
            lease,
            self.guard,
            held=self.claimer.claims,
            on_lost=elsewhere.lose,
            metrics=self.metrics,
        )
