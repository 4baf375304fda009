"""The operator's process: watches feed a queue, the leader works it off, health tells of it.

watches ──> store ──> queue ──> reconcile          only the leader takes from the queue;
resync  ──────────────^  ^── looks at databases    a standby keeps its store warm
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from kubernetes.aio.client import ApiClient

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import MANAGED_BY, OWNER_LABEL
from openworkflow_operator.api.spec import Key
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.informer import Informer
from openworkflow_operator.cluster.leadership import Leadership
from openworkflow_operator.cluster.store import Store
from openworkflow_operator.database.connection import ConnectOptions
from openworkflow_operator.database.observatory import Look, Observatory
from openworkflow_operator.database.retention import Pruner, Rest
from openworkflow_operator.database.routes import Router
from openworkflow_operator.database.schedules import Pace, ScheduleKeeper
from openworkflow_operator.database.upkeep import Upkeep
from openworkflow_operator.report import health
from openworkflow_operator.report.metrics import Metrics
from openworkflow_operator.settings import Settings
from openworkflow_operator.visits.reconcile import Reconciler
from openworkflow_operator.work import WorkQueue

logger = logging.getLogger(__name__)

#: A visit asks only the API server; one that takes so long is given up, and made again.
VISIT_SECONDS: Final = 120.0
#: Without a list that the API server gave, or the end of a visit, for this long it counts as dead.
STALLED_SECONDS: Final = 300.0
#: For how long to wait for lists that are not refused and do not come, such as of a kind whose
#: conversion is broken. Then the operator leads without them.
LISTS_SECONDS: Final = 60.0
#: By a slow API server one after the other would take minutes.
LISTS_AT_ONCE: Final = 16


class Operator:
    """Everything of one process. `run` ends when it is cancelled or leadership is lost."""

    def __init__(self, client: ApiClient, settings: Settings) -> None:
        self.settings, self.metrics, self.queue = settings, Metrics(), WorkQueue()
        self.store = Store(self.queue.add)
        self.cluster = Cluster(client, self._count_call)
        self._informers = list(self._make_informers())
        self._leadership = Leadership(
            self.cluster,
            settings.namespace,
            MANAGED_BY,
            settings.identity,
            settings.lease_seconds,
        )
        self._resynced_at = self._led_at = time.monotonic()
        self.port, self.rest, self.pace = 0, Rest(), Pace()
        self._is_unwatched = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """Whether this process acts."""
        return self._leadership.is_leader

    async def run(self, watch: Watch | None = None) -> None:
        """Work until cancelled. `watch` feeds WorkflowNamespaces to the store while it is open.

        Raises LeadershipLost, in an ExceptionGroup, when another operator may act.
        """
        registry = self.metrics.registry
        watched = contextlib.nullcontext() if watch is None else watch(self)
        async with (
            health.served(self.settings.port, registry, self.not_live, self.not_ready) as port,
            asyncio.TaskGroup() as tasks,
        ):
            self.port = port
            for informer in self._informers:
                is_watched = watch is not None and informer.kind is kinds.WORKFLOW_NAMESPACE
                tasks.create_task(informer.run(watch=not is_watched), name="informer")
                if is_watched:
                    tasks.create_task(self._watch_itself(informer), name="informer")
            tasks.create_task(self._resync_forever(), name="resync")
            async with watched:
                await self._lead()

    def watch_itself(self) -> None:
        """Watch the resources too from now on: whoever else does it may not see all."""
        self._is_unwatched.set()

    async def _watch_itself(self, informer: Informer) -> None:
        await self._is_unwatched.wait()
        await informer.run()

    def not_live(self) -> str | None:
        """What proves that this process no longer works, not only that it runs."""
        now, allowed = time.monotonic(), max(STALLED_SECONDS, 3 * self.settings.resync_seconds)
        if (silent := now - self._resynced_at) > allowed:
            return f"the API server has given no list for {silent:.0f} s"
        if not self.is_leader:
            return None
        if (lasts := self.queue.longest_visit()) > allowed:
            return f"a visit has gone on for {lasts:.0f} s"
        idle = now - max(self.queue.last_done, self._led_at)
        if self.store.resources() and idle > allowed:
            return f"no visit has ended for {idle:.0f} s"
        return None

    def not_ready(self) -> str | None:
        """What is missing before this process could act."""
        if any(not informer.settled.is_set() for informer in self._informers):
            return "the cluster was not listed yet"
        if missing := self._not_listed():
            return f"there is no list of {missing}: check the operator's Role and its log"
        return None

    def _not_listed(self) -> str:
        """The kinds of which nothing is known."""
        listed = {informer.kind for informer in self._informers if informer.listed.is_set()}
        missing = {each.kind.plural for each in self._informers if each.kind not in listed}
        return ", ".join(sorted(missing))

    async def _lead(self) -> None:
        # Of these something has to be known; a namespace that may not be listed is left out.
        for kind in (kinds.WORKFLOW_NAMESPACE, kinds.DEPLOYMENT, kinds.POD):
            await self._listed_somewhere(kind)
        await self._settled()
        async with self._leadership.held():
            self.metrics.leader.set(1)
            self._led_at = time.monotonic()
            options = ConnectOptions(self.settings.ca_file or None, self.settings.allow_loopback)
            async with (
                Observatory(self.queue.add, options, self._count_look) as observatory,
                self._pruner(options) as pruner,
                ScheduleKeeper(self.queue.add, options, self.pace) as schedules,
                Router(observatory, self.queue.add) as router,
                asyncio.TaskGroup() as workers,
            ):
                reconciler = self._reconciler(observatory, Upkeep(pruner, schedules), router)
                self._visit_all()
                for _ in range(self.settings.workers):
                    workers.create_task(self._work(reconciler, observatory), name="worker")

    async def _settled(self) -> None:
        """Wait for the other lists, or until it is known, or likely, that some do not come."""
        try:
            async with asyncio.timeout(LISTS_SECONDS):
                for informer in self._informers:
                    await informer.settled.wait()
        except TimeoutError:
            logger.warning("goes on without a list of %s", self._not_listed())
            for informer in self._informers:
                informer.settled.set()

    async def _listed_somewhere(self, kind: kinds.Kind) -> None:
        listed = [
            asyncio.ensure_future(informer.listed.wait())
            for informer in self._informers
            if informer.kind == kind
        ]
        try:
            await asyncio.wait(listed, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in listed:
                each.cancel()

    async def _work(self, reconciler: Reconciler, observatory: Observatory) -> None:
        while True:
            key = await self.queue.take()
            started = time.perf_counter()
            try:
                async with asyncio.timeout(VISIT_SECONDS):
                    again_after = await reconciler.reconcile(key)
            except (ClusterError, TimeoutError) as error:
                pause = self.queue.failed(key)
                status = error.status if isinstance(error, ClusterError) else 0
                result = "refused" if 400 <= status < 500 else "failed"
                logger.warning("%s is visited again within %.1f s: %s", key, pause, error)
            except Exception:
                self.queue.failed(key)
                result = "bug"
                logger.exception("a fault of the operator itself, on %s", key)
            else:
                self.queue.done(key, again_after)
                result = "done"
            self.metrics.reconciles.labels(result).inc()
            self.metrics.reconcile_seconds.observe(time.perf_counter() - started)
            self.metrics.queue_depth.set(len(self.queue))
            self.metrics.connections.set(observatory.connections)

    async def _resync_forever(self) -> None:
        """Correct the store by full lists, so that no lost event and no dead watch matters long."""
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                await self.relist()
            except ClusterError as error:
                logger.warning("the full visit has to wait: %s", error)
                continue
            self._visit_all()
            self.metrics.last_resync.set_to_current_time()

    def _visit_all(self) -> None:
        for key in self.store.resources():
            self.queue.add(key)

    async def relist(self) -> None:
        """Take in full lists of everything that may be listed.

        Raises ClusterError if the API server gave none at all. One that it does not give is missed
        in what it is of, and nowhere else.
        """
        at_once = asyncio.Semaphore(LISTS_AT_ONCE)

        async def relisted(informer: Informer) -> ClusterError | None:
            try:
                async with at_once:
                    await informer.relist()
            except ClusterError as error:
                return error
            self._resynced_at = time.monotonic()  # a slow API server is no reason to start anew
            return None

        errors = await asyncio.gather(*map(relisted, self._informers))
        for informer, error in zip(self._informers, errors, strict=True):
            if error is not None and (error.status != 404 or informer.kind.is_built_in):
                logger.warning("%s are not listed: %s", informer.kind.plural, error)
        if all(errors):
            raise next(filter(None, errors))

    def _pruner(self, options: ConnectOptions) -> Pruner:
        def deleted(key: Key, runs: int) -> None:
            self.metrics.pruned_runs.labels(*key).inc(runs)

        def failed(reason: str) -> None:
            self.metrics.prune_errors.labels(reason).inc()

        return Pruner(self.queue.add, deleted, failed, options, self.rest)

    def _reconciler(self, observatory: Observatory, upkeep: Upkeep, router: Router) -> Reconciler:
        return Reconciler(
            self.cluster,
            self.store,
            observatory,
            upkeep,
            router,
            self.metrics,
            self.queue.add,
            self.settings.max_replicas,
            self._service_monitors_exist,
            self._leadership.installation,
        )

    def _make_informers(self) -> Sequence[Informer]:
        namespaces: Sequence[str | None] = self.settings.namespaces or (None,)
        watched: list[tuple[kinds.Kind, str | None]] = [(kinds.WORKFLOW_NAMESPACE, None)]
        watched += [(kind, OWNER_LABEL) for kind in (*kinds.OWNED, kinds.POD)]
        self._service_monitors: list[Informer] = []
        informers = []
        for kind, selector in watched:
            for namespace in namespaces:
                # One kind of all tells of an API server's return.
                told = self._visit_all if kind is kinds.DEPLOYMENT else (lambda: None)
                informer = Informer(self.cluster, self.store, kind, namespace, selector, told)
                informers.append(informer)
                if kind is kinds.SERVICE_MONITOR:
                    self._service_monitors.append(informer)
        return informers

    def _service_monitors_exist(self) -> bool:
        return any(informer.is_served for informer in self._service_monitors)

    def _count_call(self, verb: str, status: int) -> None:
        self.metrics.api_calls.labels(verb, str(status or "none")).inc()

    def _count_look(self, look: Look) -> None:
        self.metrics.observation_seconds.observe(look.seconds)
        if look.reason is not None:
            self.metrics.observation_errors.labels(look.reason).inc()


Watch = Callable[[Operator], AbstractAsyncContextManager[None]]
