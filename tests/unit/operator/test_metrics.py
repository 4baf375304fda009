"""What the operator shows of its fleets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openworkflow_operator.api.spec import Key
from openworkflow_operator.report.metrics import LABELS, FleetReport, Metrics

KEY = Key("shop", "orders")
SEEN = FleetReport("orders", due=3, running=1, waking=0, oldest_due_age=2.0, last_observation=1e9)
UNREADABLE = FleetReport("orders", desired=2)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str) -> float | None:
    labels = dict(zip(LABELS, (*KEY, "orders"), strict=True))
    return metrics.registry.get_sample_value(f"openworkflow_namespace_{name}", labels)


def test_runs_that_cannot_be_counted_are_not_zero_runs(metrics: Metrics) -> None:
    metrics.report(KEY, SEEN)
    metrics.report(KEY, UNREADABLE)

    counts = ("due_runs", "running_runs", "waking_runs", "oldest_due_age_seconds")
    assert [None] * 4 == [value(metrics, name) for name in counts]
    assert 2 == value(metrics, "desired_replicas")


def test_the_last_observation_stands_while_the_database_is_away(metrics: Metrics) -> None:
    metrics.report(KEY, UNREADABLE)
    assert 0 == value(metrics, "last_observation_timestamp_seconds")

    metrics.report(KEY, SEEN)
    metrics.report(KEY, UNREADABLE)
    assert 1e9 == value(metrics, "last_observation_timestamp_seconds")

    metrics.report(KEY, replace(SEEN, last_observation=2e9))
    assert 2e9 == value(metrics, "last_observation_timestamp_seconds")


def test_the_series_of_a_deleted_resource_end(metrics: Metrics) -> None:
    metrics.report(KEY, SEEN)
    metrics.forget(KEY)

    assert value(metrics, "due_runs") is None


def test_errors_that_did_not_happen_yet_are_zero_so_that_a_rate_sees_the_first(
    metrics: Metrics,
) -> None:
    labels = {"reason": "AuthenticationFailed"}

    for kind in ("observation", "prune"):
        name = f"openworkflow_{kind}_errors_total"
        assert 0 == metrics.registry.get_sample_value(name, labels)
