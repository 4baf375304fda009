"""What a worker counts, as Prometheus reads it."""

from __future__ import annotations

import random
import re
import threading
import time
import timeit

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from openworkflow.telemetry.buckets import Buckets, RecentMaximum
from openworkflow.telemetry.catalogue import CATALOGUE, ERROR_KINDS, RUN_OUTCOMES, catalogue
from openworkflow.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("production")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"namespace_id": "production", **labels})


def test_what_is_served_counts_zero_from_the_start(metrics: Metrics) -> None:
    """`rate()` and alerts need a series before the first event."""
    metrics.serve(["bill"])

    for outcome in RUN_OUTCOMES:
        assert 0 == value(
            metrics,
            "openworkflow_workflow_run_finished_total",
            workflow="bill",
            outcome=outcome,
        )
    for name in ("workflow_run_claimed_total", "claim_lost_total", "workflow_run_seconds_count"):
        assert 0 == value(metrics, f"openworkflow_{name}", workflow="bill")
    for kind in ERROR_KINDS:
        assert 0 == value(metrics, "openworkflow_database_errors_total", kind=kind)
    for name in ("worker_slots", "worker_slots_used", "event_loop_lag_seconds"):
        assert 0 == value(metrics, f"openworkflow_{name}")
    assert 0 == value(metrics, "openworkflow_flush_seconds_count")


def test_every_metric_of_the_catalogue_exists_once_there_is_a_worker(metrics: Metrics) -> None:
    metrics.serve(["bill"])
    metrics.build_info("1.0", "abc")
    metrics.limits({"bill/key": (2, 3)})

    families = {family.name: family for family in metrics.registry.collect()}

    assert {d.name.removesuffix("_total") for d in CATALOGUE} == set(families)
    assert [] == [name for name, family in families.items() if not family.samples]
    assert 2 == value(metrics, "openworkflow_limit_slots_used", limit="bill/key")
    assert 3 == value(metrics, "openworkflow_limit_runs_waiting", limit="bill/key")
    metrics.limits({})
    assert None is value(metrics, "openworkflow_limit_slots_used", limit="bill/key")


def test_serving_again_keeps_the_counts(metrics: Metrics) -> None:
    metrics.claimed({"bill": 3}, 3)
    metrics.serve(["bill"])

    assert 3 == value(metrics, "openworkflow_workflow_run_claimed_total", workflow="bill")


def test_claims_count_runs_by_workflow_and_their_batch(metrics: Metrics) -> None:
    metrics.claimed({"bill": 3, "mail": 1}, 4)

    assert 3 == value(metrics, "openworkflow_workflow_run_claimed_total", workflow="bill")
    assert 1 == value(metrics, "openworkflow_workflow_run_claimed_total", workflow="mail")
    assert 4 == value(metrics, "openworkflow_claim_batch_size_sum")
    assert 1 == value(metrics, "openworkflow_claim_batch_size_bucket", le="5.0")


def test_runs_and_steps_count_by_outcome_and_duration(metrics: Metrics) -> None:
    metrics.run_finished("bill", "succeeded", 0.3)
    metrics.step_finished("bill", "failed", 0.002)
    metrics.schedule_to_start("bill", 0.07)
    metrics.claim_lost("bill")

    assert 1 == value(
        metrics, "openworkflow_workflow_run_finished_total", workflow="bill", outcome="succeeded"
    )
    assert 0.3 == value(metrics, "openworkflow_workflow_run_seconds_sum", workflow="bill")
    assert 1 == value(
        metrics, "openworkflow_step_attempt_finished_total", workflow="bill", outcome="failed"
    )
    assert 1 == value(
        metrics, "openworkflow_step_attempt_seconds_bucket", workflow="bill", le="0.0025"
    )
    assert 1 == value(
        metrics,
        "openworkflow_workflow_run_schedule_to_start_seconds_bucket",
        workflow="bill",
        le="0.1",
    )
    assert 1 == value(metrics, "openworkflow_claim_lost_total", workflow="bill")


def test_buckets_are_cumulative_and_include_their_bound(metrics: Metrics) -> None:
    for seconds in (0.001, 0.0011, 5000.0):
        metrics.flushed(1, seconds)

    buckets = [
        value(metrics, "openworkflow_flush_seconds_bucket", le=bound)
        for bound in ("0.001", "0.0025", "3600.0", "+Inf")
    ]
    assert [1, 2, 2, 3] == buckets
    assert 3 == value(metrics, "openworkflow_flush_seconds_count")


def counts(buckets: Buckets) -> dict[str, float]:
    family = HistogramMetricFamily("seconds", "of a test")
    buckets.add_to(family, [])
    samples = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    return {name: round(count, 6) for name, count in samples.items()}


def test_values_that_gathered_count_as_if_each_had_been_looked_at() -> None:
    numbers = random.Random(7)
    seen = [numbers.choice([0.0, 1.0, 2.0, 5.0, numbers.uniform(0, 9)]) for _ in range(500)]
    at_once, one_by_one = Buckets((1.0, 2.0, 5.0)), Buckets((1.0, 2.0, 5.0))

    for seconds in seen:
        at_once.observe(seconds)
        one_by_one.observe(seconds)
        one_by_one.fold()

    assert counts(at_once) == counts(one_by_one)
    assert counts(at_once)["2.0"] == sum(seconds <= 2.0 for seconds in seen)
    assert counts(at_once)["+Inf"] == 500


def test_no_value_is_lost_or_counted_twice_while_others_fold() -> None:
    buckets, over = Buckets((1.0,)), threading.Event()

    def scrape() -> None:
        while not over.is_set():
            buckets.fold()

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in scrapers:
        thread.start()
    for _ in range(50_000):
        buckets.observe(0.5)
    over.set()
    for thread in scrapers:
        thread.join(10)

    assert counts(buckets)["+Inf"] == 50_000


def test_gauges_tell_the_last_value(metrics: Metrics) -> None:
    metrics.slots(3, 100, 0)
    metrics.slots(7, 100, 2)
    metrics.resident(5)
    metrics.threads_left_behind(4)
    metrics.heartbeat()
    metrics.database_error("connection")
    metrics.build_info("1.2.3", "abc")

    assert 7 == value(metrics, "openworkflow_worker_slots_used")
    assert 100 == value(metrics, "openworkflow_worker_slots")
    assert 2 == value(metrics, "openworkflow_worker_runs_resting")
    assert 5 == value(metrics, "openworkflow_worker_runs_resident")
    assert 4 == value(metrics, "openworkflow_threads_left_behind")
    beat = value(metrics, "openworkflow_heartbeat_last_timestamp_seconds")
    assert beat == pytest.approx(time.time(), abs=5)
    assert 1 == value(metrics, "openworkflow_database_errors_total", kind="connection")
    assert 1 == value(metrics, "openworkflow_build_info", version="1.2.3", build_id="abc")


def test_a_lag_is_seen_by_a_scrape_that_comes_later(metrics: Metrics) -> None:
    metrics.event_loop_lag(2.0)
    metrics.event_loop_lag(0.001)

    assert 2.0 == value(metrics, "openworkflow_event_loop_lag_seconds")


def test_a_recent_maximum_forgets_after_its_window() -> None:
    recent = RecentMaximum(60.0)

    assert 5.0 == recent.add(5.0, 100.0)
    assert 5.0 == recent.add(1.0, 129.0)
    assert 5.0 == recent.add(2.0, 131.0)
    assert 2.0 == recent.add(1.0, 162.0)
    assert 0.5 == recent.add(0.5, 1000.0)


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"openworkflow_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.help.endswith(".")
        assert (metric.type == "counter") == metric.name.endswith("_total")
        assert (metric.type == "histogram") == bool(metric.buckets)
        assert sorted(metric.buckets) == list(metric.buckets)
    assert len(CATALOGUE) == len({metric.name for metric in CATALOGUE})


def test_the_catalogue_lists_all_labels() -> None:
    assert {m.name for m in CATALOGUE} == {m.name for m in catalogue()}
    assert all("namespace_id" == metric.labels[0] for metric in catalogue())


def test_prometheus_can_parse_the_output_whatever_a_workflow_is_called() -> None:
    metrics = Metrics('a "namespace"\\\n', CollectorRegistry())
    metrics.serve(['quo"te\\\nline'])

    families = list(
        text_string_to_metric_families(generate_latest(metrics.registry).decode("utf-8"))
    )

    labels = [sample.labels for family in families for sample in family.samples]
    assert all('a "namespace"\\\n' == values["namespace_id"] for values in labels)
    assert 'quo"te\\\nline' in {values.get("workflow") for values in labels}


def test_two_namespaces_can_share_a_process_with_a_registry_each() -> None:
    first, second = Metrics("a"), Metrics("b")

    assert first.registry is not second.registry


def test_a_run_of_one_step_costs_less_than_the_budget(metrics: Metrics) -> None:
    """Measured: about 1 microsecond; the limit leaves room for a busy machine."""
    metrics.serve(["bill"])
    batch = {"bill": 25}

    def run() -> None:
        metrics.schedule_to_start("bill", 0.004)
        metrics.step_finished("bill", "succeeded", 0.004)
        metrics.run_finished("bill", "succeeded", 0.2)

    def seconds_each(function: str, number: int) -> float:
        names = {"run": run, "metrics": metrics, "batch": batch}
        return min(timeit.repeat(function, globals=names, number=number, repeat=7)) / number

    total = seconds_each("run()", 2000) + seconds_each("metrics.claimed(batch, 25)", 2000) / 25
    assert total < 10e-6
