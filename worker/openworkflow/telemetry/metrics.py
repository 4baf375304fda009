"""The metrics of a worker: names, meaning, and how they are counted.

Runs and steps are counted in plain dicts and lists: a fraction of a microsecond, where the
client library's own objects cost several. A collector makes metric families of them at a scrape.
Labels are `namespace_id`, `workflow` and small enumerations, never a run.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from openworkflow.telemetry.buckets import Buckets, RecentMaximum

# fmt: off
SHORT = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10, 30, 60, 300, 1800, 3600,
)
"""Seconds of steps, waits and flushes: a millisecond to an hour."""
LONG = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400, 604_800)
"""Seconds of executions: 5 milliseconds to a week."""
# fmt: on
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
RUN_OUTCOMES = (
    "succeeded",
    "failed",
    "undoing",
    "canceled",
    "retried",
    "parked",
    "released",
    "continued",
    "lost",
)
MOST_LIMITS = 100
"""Limits that are reported; a workflow's code may name any number."""
STEP_OUTCOMES = ("succeeded", "failed")
ERROR_KINDS = (
    "connection",
    "collision",
    "size",
    "tables",
    "refused",
    "defect",
    "heartbeat",
    "history",
    "schedule",
)
LAG_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Described:
    """One metric of the catalogue; `labels` come after namespace_id."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE = (
    Described("openworkflow_workflow_run_claimed_total", "counter", "Runs claimed.", ("workflow",)),
    Described(
        "openworkflow_workflow_run_finished_total",
        "counter",
        "Executions of runs ended, by outcome; only succeeded, failed and canceled end the run.",
        ("workflow", "outcome"),
    ),
    Described(
        "openworkflow_workflow_run_seconds",
        "histogram",
        "Seconds of one execution of a run, from claim to its recorded end.",
        ("workflow",),
        LONG,
    ),
    Described(
        "openworkflow_workflow_run_schedule_to_start_seconds",
        "histogram",
        "Seconds from when a run was due until it was claimed.",
        ("workflow",),
        SHORT,
    ),
    Described(
        "openworkflow_step_attempt_finished_total",
        "counter",
        "Step attempts recorded, by outcome.",
        ("workflow", "outcome"),
    ),
    Described(
        "openworkflow_step_attempt_seconds",
        "histogram",
        "Seconds of step attempts, from their start until they were sent to be recorded.",
        ("workflow",),
        SHORT,
    ),
    Described("openworkflow_worker_slots_used", "gauge", "Slots that hold a run."),
    Described("openworkflow_worker_slots", "gauge", "Slots of this worker."),
    Described(
        "openworkflow_worker_runs_resting",
        "gauge",
        "Runs that wait in memory without a slot; at most as many as there are slots.",
    ),
    Described(
        "openworkflow_threads_left_behind",
        "gauge",
        "Threads inside sync functions that passed their time limit or were interrupted.",
    ),
    Described("openworkflow_claim_batch_size", "histogram", "Runs got by a claim.", (), SIZES),
    Described("openworkflow_flush_size", "histogram", "Writes that shared a commit.", (), SIZES),
    Described(
        "openworkflow_flush_seconds",
        "histogram",
        "Seconds of a flush, round trip and commit.",
        (),
        SHORT,
    ),
    Described(
        "openworkflow_claim_lost_total",
        "counter",
        "Executions stopped because their run was canceled or claimed by another worker.",
        ("workflow",),
    ),
    Described(
        "openworkflow_workflow_run_crashed_total",
        "counter",
        "Claims of runs that lost a worker and have recorded no step since.",
        ("workflow",),
    ),
    Described(
        "openworkflow_undo_failed_total",
        "counter",
        "Runs that ended with steps that could not be undone; their errors name them.",
        ("workflow",),
    ),
    Described(
        "openworkflow_heartbeat_last_timestamp_seconds",
        "gauge",
        "Unix time of the last heartbeat that reached the database; 0 before the first.",
    ),
    Described(
        "openworkflow_database_errors_total", "counter", "Failed database requests.", ("kind",)
    ),
    Described(
        "openworkflow_writes_refused",
        "gauge",
        "Writes that the database refuses for now, and that are sent again until it takes them.",
    ),
    Described("openworkflow_schedules_late", "gauge", "Schedules whose next run is overdue."),
    Described("openworkflow_limit_slots_used", "gauge", "Runs that have a slot.", ("limit",)),
    Described("openworkflow_limit_runs_waiting", "gauge", "Due runs that wait.", ("limit",)),
    Described(
        "openworkflow_event_loop_lag_seconds",
        "gauge",
        "How late the event loop was at worst in the last minute; high where code blocks it.",
    ),
    Described(
        "openworkflow_build_info",
        "gauge",
        "Always 1; the labels say which code this worker runs.",
        ("version", "build_id"),
    ),
)


def catalogue() -> tuple[Described, ...]:
    """Every metric there is, with all its labels, for the documentation."""
    return tuple(replace(d, labels=("namespace_id", *d.labels)) for d in CATALOGUE)


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
            for outcome in RUN_OUTCOMES:
                self._finished[workflow, outcome] += 0
            for outcome in STEP_OUTCOMES:
                self._steps[workflow, outcome] += 0
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
