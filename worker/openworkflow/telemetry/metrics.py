"""The metrics of a worker: how they are counted.

Runs and steps are counted in plain dicts and lists: a fraction of a microsecond, where the
client library's own objects cost several. A collector makes metric families of them at a scrape.
Labels are `namespace_id`, `workflow` and small enumerations, never a run.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from openworkflow.telemetry.buckets import Buckets, RecentMaximum
from openworkflow.telemetry.catalogue import (
    CATALOGUE,
    ERROR_KINDS,
    RUN_OUTCOMES,
    STEP_OUTCOMES,
    WAIT_KINDS,
    Described,
)

MOST_LIMITS = 100
"""Limits that are reported; a workflow's code may name any number."""
LAG_WINDOW_SECONDS = 60.0


class Metrics(Collector):
    """What one worker counts; registers itself with `registry`, or a registry of its own.

    Counts from the worker's event loop, but for the heartbeat's two; any thread may scrape.
    """

    def __init__(self, namespace_id: str, registry: CollectorRegistry | None = None) -> None:
        self._namespace_id = namespace_id
        self._counters: dict[str, defaultdict[tuple[str, ...], float]] = {
            d.name: defaultdict(float) for d in CATALOGUE if d.type != "histogram"
        }
        self._histograms: dict[str, defaultdict[tuple[str, ...], Buckets]] = {
            d.name: defaultdict(partial(Buckets, d.buckets))
            for d in CATALOGUE
            if d.type == "histogram"
        }
        self._claimed = self._counters["openworkflow_workflow_run_claimed_total"]
        self._finished = self._counters["openworkflow_workflow_run_finished_total"]
        self._steps = self._counters["openworkflow_step_attempt_finished_total"]
        self._run_seconds = self._histograms["openworkflow_workflow_run_seconds"]
        self._waits = self._histograms["openworkflow_workflow_run_schedule_to_start_seconds"]
        self._step_seconds = self._histograms["openworkflow_step_attempt_seconds"]
        self._batches = self._histograms["openworkflow_claim_batch_size"][()]
        self._flush_sizes = self._histograms["openworkflow_flush_size"][()]
        self._flush_seconds = self._histograms["openworkflow_flush_seconds"][()]
        self._lag = RecentMaximum(LAG_WINDOW_SECONDS)
        self.slots(0, 0, 0)
        self.threads_left_behind(0)
        self.resident(0)
        self.writes_refused(0)
        self.schedules_late(0)
        self._gauge("openworkflow_heartbeat_last_timestamp_seconds", 0)
        self._gauge("openworkflow_event_loop_lag_seconds", 0)
        for kind in ERROR_KINDS:
            self._counters["openworkflow_database_errors_total"][kind,] = 0
        self.registry = registry or CollectorRegistry()
        self.registry.register(self)

    def serve(self, workflows: Iterable[str]) -> None:
        """Report zeros for these workflows from the start, so that rates and alerts see them."""
        for workflow in workflows:
            self._claimed[workflow,] += 0
            self._counters["openworkflow_claim_lost_total"][workflow,] += 0
            self._counters["openworkflow_workflow_run_crashed_total"][workflow,] += 0
            self._counters["openworkflow_undo_failed_total"][workflow,] += 0
            self._counters["openworkflow_worker_runs_resumed_total"][workflow,] += 0
            for outcome in RUN_OUTCOMES:
                self._finished[workflow, outcome] += 0
            for outcome in STEP_OUTCOMES:
                self._steps[workflow, outcome] += 0
            for kind in WAIT_KINDS:
                self._counters["openworkflow_waits_begun_total"][workflow, kind] += 0
            for histogram in (self._run_seconds, self._waits, self._step_seconds):
                _ = histogram[workflow,]

    def claimed(self, runs: Mapping[str, int], batch: int) -> None:
        """A claim brought `batch` runs, so many of each workflow."""
        for workflow, count in runs.items():
            self._claimed[workflow,] += count
        self._batches.observe(batch)

    def run_finished(self, workflow: str, outcome: str, seconds: float) -> None:
        """An execution ended; `outcome` is one of RUN_OUTCOMES."""
        self._finished[workflow, outcome] += 1
        self._run_seconds[workflow,].observe(seconds)

    def step_finished(self, workflow: str, outcome: str, seconds: float) -> None:
        """A step attempt was recorded; `outcome` is one of STEP_OUTCOMES."""
        self._steps[workflow, outcome] += 1
        self._step_seconds[workflow,].observe(seconds)

    def wait_begun(self, workflow: str, kind: str) -> None:
        """A run began to wait; `kind` is one of WAIT_KINDS."""
        self._counters["openworkflow_waits_begun_total"][workflow, kind] += 1

    def schedule_to_start(self, workflow: str, seconds: float) -> None:
        """A due run waited so long to be claimed."""
        self._waits[workflow,].observe(seconds)

    def crashed(self, workflow: str) -> None:
        """A run was claimed whose last worker was lost."""
        self._counters["openworkflow_workflow_run_crashed_total"][workflow,] += 1

    def undo_failed(self, workflow: str) -> None:
        """A run ended with steps that could not be undone."""
        self._counters["openworkflow_undo_failed_total"][workflow,] += 1

    def slots(self, used: int, total: int, resting: int) -> None:
        """How full the worker is, and how many runs rest beside its slots."""
        self._gauge("openworkflow_worker_slots_used", used)
        self._gauge("openworkflow_worker_slots", total)
        self._gauge("openworkflow_worker_runs_resting", resting)

    def resident(self, count: int) -> None:
        """Parked runs that stay in memory."""
        self._gauge("openworkflow_worker_runs_resident", count)

    def resumed(self, workflow: str) -> None:
        """A parked run went on from memory."""
        self._counters["openworkflow_worker_runs_resumed_total"][workflow,] += 1

    def threads_left_behind(self, count: int) -> None:
        """Threads inside functions that nobody waits for any more."""
        self._gauge("openworkflow_threads_left_behind", count)

    def flushed(self, size: int, seconds: float) -> None:
        """A flush of so many writes took so long."""
        self._flush_sizes.observe(size)
        self._flush_seconds.observe(seconds)

    def claim_lost(self, workflow: str) -> None:
        """An execution was stopped: its claim is gone."""
        self._counters["openworkflow_claim_lost_total"][workflow,] += 1

    def heartbeat(self) -> None:
        """A heartbeat reached the database now."""
        self._gauge("openworkflow_heartbeat_last_timestamp_seconds", time.time())

    def database_error(self, kind: str) -> None:
        """A request failed; `kind` is one of ERROR_KINDS."""
        self._counters["openworkflow_database_errors_total"][kind,] += 1

    def writes_refused(self, count: int) -> None:
        """Writes that wait until the database takes them."""
        self._gauge("openworkflow_writes_refused", count)

    def schedules_late(self, count: int) -> None:
        """Schedules of the namespace whose next run has been due for more than a minute."""
        self._gauge("openworkflow_schedules_late", count)

    def limits(self, counted: Mapping[str, tuple[int, int]]) -> None:
        """By limit: runs that have a slot, and runs that wait. Those of most runs are reported."""
        first = sorted(counted.items(), key=lambda each: (-sum(each[1]), each[0]))[:MOST_LIMITS]
        for place, name in enumerate(("slots_used", "runs_waiting")):
            gauge = self._counters[f"openworkflow_limit_{name}"]
            gauge.clear()
            gauge.update({(limit,): float(counts[place]) for limit, counts in first})

    def event_loop_lag(self, seconds: float) -> None:
        """The event loop came back so late.

        Reported is the longest of a while: a scrape would miss nearly all moments of trouble.
        """
        longest = self._lag.add(seconds, time.monotonic())
        self._gauge("openworkflow_event_loop_lag_seconds", longest)

    def build_info(self, version: str, build_id: str) -> None:
        """What code runs."""
        self._counters["openworkflow_build_info"][version, build_id] = 1

    def fold(self) -> None:
        """Keep small what has gathered since the last scrape; called every moment."""
        for histogram in self._histograms.values():
            for buckets in histogram.values():
                buckets.fold()

    def collect(self) -> Iterator[Metric]:
        """All metrics, for a scrape; called from the HTTP server's thread."""
        for described in CATALOGUE:
            labels = ["namespace_id", *described.labels]
            if described.type == "histogram":
                yield self._collect_histogram(described, labels)
            else:
                yield self._collect_value(described, labels)

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def _collect_histogram(self, described: Described, labels: list[str]) -> Metric:
        family = HistogramMetricFamily(described.name, described.help, labels=labels)
        for values, buckets in list(self._histograms[described.name].items()):
            buckets.add_to(family, [self._namespace_id, *values])
        return family

    def _collect_value(self, described: Described, labels: list[str]) -> Metric:
        kind = CounterMetricFamily if described.type == "counter" else GaugeMetricFamily
        family = kind(described.name, described.help, labels=labels)
        for values, value in list(self._counters[described.name].items()):
            family.add_metric([self._namespace_id, *values], value)
        return family

    def _gauge(self, name: str, value: float) -> None:
        self._counters[name][()] = value
