"""Several processes: how they share slots, and how their metrics are told as one."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openworkflow.cli.processes import Member, shares
from openworkflow.telemetry.gathered import Gathered


@given(st.integers(1, 64), st.integers(0, 1000))
def test_slots_are_shared_without_remainder_as_evenly_as_can_be(count: int, more: int) -> None:
    total = count + more
    each = shares(total, count)

    assert (count, total) == (len(each), sum(each))
    assert max(each) - min(each) <= 1


def _text(value: float) -> str:
    registry = CollectorRegistry()
    Gauge("slots", "Slots.", registry=registry).set(value)
    Counter("ended", "Ended.", ["outcome"], registry=registry).labels("good").inc(value)
    Histogram("seconds", "Seconds.", buckets=[1], registry=registry).observe(value)
    return generate_latest(registry).decode()


def test_each_sample_says_of_which_process_it_is() -> None:
    registry = CollectorRegistry()
    registry.register(Gathered(lambda: {"0": _text(3), "1": _text(0.5)}))

    told = [
        line for line in generate_latest(registry).decode().splitlines() if "created" not in line
    ]

    assert told == [
        "# HELP slots Slots.",
        "# TYPE slots gauge",
        'slots{process="0"} 3.0',
        'slots{process="1"} 0.5',
        "# HELP ended_total Ended.",
        "# TYPE ended_total counter",
        'ended_total{outcome="good",process="0"} 3.0',
        'ended_total{outcome="good",process="1"} 0.5',
        "# HELP seconds Seconds.",
        "# TYPE seconds histogram",
        'seconds_bucket{le="1.0",process="0"} 0.0',
        'seconds_bucket{le="+Inf",process="0"} 1.0',
        'seconds_count{process="0"} 1.0',
        'seconds_sum{process="0"} 3.0',
        'seconds_bucket{le="1.0",process="1"} 1.0',
        'seconds_bucket{le="+Inf",process="1"} 1.0',
        'seconds_count{process="1"} 1.0',
        'seconds_sum{process="1"} 0.5',
    ]


def test_what_did_not_answer_is_left_out() -> None:
    registry = CollectorRegistry()
    registry.register(Gathered(dict))

    assert b"" == generate_latest(registry)


def test_a_process_that_is_silent_for_long_does_not_count_as_alive() -> None:
    unused: Any = None
    member = Member("0", unused, unused, port=1, live=(True, "live"))

    assert (True, "live") == member.lives()
    member.heard_at = time.monotonic() - 12
    assert (False, "has not answered for 12 s") == member.lives()
    member.port = None  # it has not begun to answer
    assert (True, "live") == member.lives()
