"""What the operator tells Prometheus: its fleets, which may have no pod to tell it, and itself.

Fleet series come from the last report of each resource when they are scraped, so those of a deleted
resource vanish with it. No label has an unbounded number of values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openworkflow_operator.api.spec import Key
from openworkflow_operator.decide.observation import DatabaseReason

RESULTS: Final = ("done", "refused", "failed", "bug")
_NO_ERRORS: Final = (DatabaseReason.REACHABLE, DatabaseReason.NOT_OBSERVED)
LABELS: Final = ("kube_namespace", "workflow_namespace", "namespace_id")


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The numbers of one resource."""

    namespace_id: str
    due: int | None = None
    """None, as the next three, while the database cannot be read: that is not zero."""
    running: int | None = None
    waking: int | None = None
    oldest_due_age: float | None = None
    desired: int = 0
    wanted: int = 0
    ready: int = 0
    maximum: int = 0
    target_latency: float = 0.0
    last_observation: float = 0.0
    """Unix time; 0 before the first one."""
    next_wake: float | None = None
    """Seconds until the next sleeping run is due."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    builds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By build: percent of the new runs, and runs of it that are due or running."""


_FLEET: Final = {
    "due_runs": ("Runs that wait for a worker, up to what can change a decision.", "due"),
    "running_runs": ("Runs that a worker holds.", "running"),
    "waking_runs": ("Sleeping runs that wake within the activation lead.", "waking"),
    "oldest_due_age_seconds": ("How long the first run in line waits.", "oldest_due_age"),
    "desired_replicas": ("Worker pods the operator asked for.", "desired"),
    "wanted_replicas": ("Worker pods the runs need, without any limit.", "wanted"),
    "ready_replicas": ("Worker pods that are ready.", "ready"),
    "max_replicas": ("The most worker pods allowed.", "maximum"),
    "target_latency_seconds": ("How long a due run may wait.", "target_latency"),
    "last_observation_timestamp_seconds": ("When the runs were last read.", "last_observation"),
}


class Metrics(Collector):
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._fleets: dict[Key, FleetReport] = {}
        self._add_fleets(registry=self.registry)
        self._add_work(registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._start_at_zero()

    def _add_fleets(self, **make: Any) -> None:
        self.scale_operations = Counter(
            "openworkflow_scale_operations",
            "Changes of the number of worker pods.",
            [*LABELS[:2], "direction"],
            **make,
        )
        self.pruned_runs = Counter(
            "openworkflow_pruned_runs",
            "Finished runs that were deleted because their retention was over.",
            LABELS[:2],
            **make,
        )
        self.prune_errors = Counter(
            "openworkflow_prune_errors", "Deletions that failed, by reason.", ["reason"], **make
        )

    def _add_work(self, **make: Any) -> None:
        self.reconciles = Counter(
            "openworkflow_reconcile", "Reconciliations of a resource by result.", ["result"], **make
        )
        self.reconcile_seconds = Histogram(
            "openworkflow_reconcile_seconds", "Duration of a reconciliation.", **make
        )
        self.observation_seconds = Histogram(
            "openworkflow_observation_seconds", "Duration of a look at a database.", **make
        )
        self.observation_errors = Counter(
            "openworkflow_observation_errors", "Looks that failed, by reason.", ["reason"], **make
        )
        self.api_calls = Counter(
            "openworkflow_kubernetes_requests", "Calls of the API.", ["verb", "code"], **make
        )
        self.queue_depth = Gauge(
            "openworkflow_reconcile_queue_depth", "Resources that wait to be reconciled.", **make
        )
        self.leader = Gauge("openworkflow_operator_leader", "1 while this operator acts.", **make)
        self.connections = Gauge(
            "openworkflow_observed_databases", "Databases that are looked at.", **make
        )
        self.last_resync = Gauge(
            "openworkflow_last_resync_timestamp_seconds",
            "When all was last reconciled.",
            **make,
        )
        build = Gauge("openworkflow_operator_build_info", "Always 1.", ["version"], **make)
        build.labels(_version()).set(1)

    def _start_at_zero(self) -> None:
        """Let a rate see the first error, for which there has to be a sample before it."""
        for result in RESULTS:
            self.reconciles.labels(result)
        for reason in DatabaseReason:
            if reason not in _NO_ERRORS:
                self.observation_errors.labels(reason)
                self.prune_errors.labels(reason)

    def report(self, key: Key, report: FleetReport) -> None:
        """Show these numbers for the resource from now on."""
        last = self._fleets.get(key)
        if last is not None and report.last_observation == 0:
            report = replace(report, last_observation=last.last_observation)
        self._fleets[key] = report

    def forget(self, key: Key) -> None:
        """The resource is gone, and so are its series."""
        self._fleets.pop(key, None)
        labels = dict(zip(LABELS[:2], key, strict=True))
        self.pruned_runs.remove_by_labels(labels)
        for direction in ("up", "down"):
            self.scale_operations.remove_by_labels({**labels, "direction": direction})

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' client at each scrape."""
        fleets = list(self._fleets.items())
        for name, (text, attribute) in _FLEET.items():
            family = GaugeMetricFamily(f"openworkflow_namespace_{name}", text, labels=LABELS)
            for key, report in fleets:
                if (value := getattr(report, attribute)) is not None:
                    family.add_metric([*key, report.namespace_id], float(value))
            yield family
        wake = GaugeMetricFamily(
            "openworkflow_namespace_next_wake_timestamp_seconds",
            "When the next sleeping run is due; absent when none is known.",
            labels=LABELS,
        )
        for key, report in fleets:
            if report.next_wake is not None:
                wake.add_metric([*key, report.namespace_id], time.time() + report.next_wake)
        yield wake
        yield _conditions(fleets)
        yield from _builds(fleets)


def _conditions(fleets: list[tuple[Key, FleetReport]]) -> Metric:
    family = GaugeMetricFamily(
        "openworkflow_namespace_condition",
        "1 for the status that the condition has.",
        labels=(*LABELS, "type", "status"),
    )
    for key, report in fleets:
        for name, status in report.conditions.items():
            for each in ("True", "False", "Unknown"):
                labels = [*key, report.namespace_id, name, each]
                family.add_metric(labels, float(status == each))
    return family


def _builds(fleets: list[tuple[Key, FleetReport]]) -> Iterator[Metric]:
    """Metrics of builds there are now, fifty at most: an old build's series end with it."""
    texts = {
        "new_runs_percent": "Share of the new runs that a build takes.",
        "unfinished_runs": "Due and running runs that only this build may finish.",
    }
    for place, (name, text) in enumerate(texts.items()):
        family = GaugeMetricFamily(
            f"openworkflow_namespace_build_{name}", text, labels=(*LABELS, "build_id")
        )
        for key, report in fleets:
            for build, values in report.builds.items():
                family.add_metric([*key, report.namespace_id, build], values[place])
        yield family


def _version() -> str:
    try:
        return version("openworkflow-fleet")
    except PackageNotFoundError:
        return "unknown"
