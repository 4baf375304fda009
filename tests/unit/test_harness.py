"""The adapter for the public harness: what it is asked, and how it counts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.harness.main import Asked
from benchmarks.harness.rolling import Rolling

URL = {"DATABASE_URL": "postgresql://h/bench"}


def test_percentiles_are_right_to_three_figures() -> None:
    rolling, values = Rolling(30), [random.Random(7).expovariate(0.1) for _ in range(20_000)]
    for place, value in enumerate(values):
        rolling.add(value, place / 1000)
    found = rolling.percentiles((50, 95, 99), 20.0)
    assert found is not None
    for percent, value in zip((50, 95, 99), found, strict=True):
        assert value == pytest.approx(sorted(values)[len(values) * percent // 100], rel=0.005)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    rolling = Rolling(30)
    rolling.add(1000, 0.0, times=99)
    rolling.add(1, 31.0)
    assert rolling.percentiles((99,), 31.0) == pytest.approx([1], rel=0.005)
    assert rolling.percentiles((99,), 70.0) is None


def test_only_the_first_instance_produces_where_the_harness_wants_that() -> None:
    assert Asked.of(URL | {"BENCH_INSTANCE_ID": "1"}).produces
    alone = {"PRODUCER_ONLY_INSTANCE_ZERO": "1"}
    assert Asked.of(URL | alone).produces
    assert not Asked.of(URL | alone | {"BENCH_INSTANCE_ID": "1"}).produces


def test_the_rate_is_that_of_the_file_while_it_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "rate"
    asked = Asked.of(URL | {"PRODUCER_RATE": "800", "PRODUCER_RATE_CONTROL_FILE": str(file)})
    assert asked.rate_now() == 800
    file.write_text("120.5\n")
    assert asked.rate_now() == 120.5
