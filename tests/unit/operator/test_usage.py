"""Advice on `worker.resources`: from what was seen, and not before enough was."""

from __future__ import annotations

import pytest

from openworkflow_operator.decide.usage import FEWEST_SAMPLES, PodUsage, Usage, remembered

MIB = 2**20


def after(samples: int, *pods: PodUsage, slots: float = 0.5) -> Usage:
    usage = Usage("t1")
    for _ in range(samples):
        usage = usage.seen(slots, pods)
    return usage


def test_the_mean_is_of_all_pods_and_the_peak_of_one() -> None:
    usage = after(10, PodUsage(0.1, 100 * MIB), PodUsage(0.3, 200 * MIB))

    told = usage.as_status()
    assert (50, "200m", "300m", "200Mi", 10) == (
        told["slotsPercent"],
        told["cpu"],
        told["cpuPeak"],
        told["memoryPeak"],
        told["samples"],
    )


def test_advice_waits_for_half_an_hour_and_leaves_room() -> None:
    early = after(FEWEST_SAMPLES - 1, PodUsage(0.2, 200 * MIB))
    usage = after(FEWEST_SAMPLES, PodUsage(0.2, 200 * MIB))

    assert "recommended" not in early.as_status()
    requests = {"cpu": "240m", "memory": "256Mi"}
    assert {"requests": requests, "limits": {"memory": "256Mi"}} == usage.recommended()


def test_a_peak_stays_and_a_mean_follows() -> None:
    usage = after(500, PodUsage(1.0, 900 * MIB))
    for _ in range(500):
        usage = usage.seen(0.0, [PodUsage(0.1, 100 * MIB)])

    assert usage.memory_peak == 900 * MIB
    assert usage.cpu == pytest.approx(0.1, abs=0.05)
    assert usage.slots < 0.05


def test_another_operator_goes_on_from_the_status_and_another_template_begins() -> None:
    usage = after(40, PodUsage(0.25, 300 * MIB))
    status = {"usage": usage.as_status()}

    assert usage.as_status() == remembered(status, "t1").as_status()
    assert Usage("t2") == remembered(status, "t2")
    assert Usage("t1") == remembered({"usage": {"template": "t1", "samples": "x"}}, "t1")
    assert Usage("t1") == remembered({}, "t1")


@pytest.mark.parametrize(
    "edited",
    [
        {"samples": -1},
        {"samples": 0},
        {"samples": 2**31 - 1},
        {"slotsPercent": -500},
        {"cpu": "-5m"},
        {"cpuPeak": "9" * 30 + "m"},
        {"memoryPeak": "-1Mi"},
        {"memoryPeak": "9" * 28 + "Mi"},
        {"cpu": "much"},
    ],
    ids=str,
)
def test_numbers_that_no_operator_wrote_are_not_gone_on_from(edited: dict[str, object]) -> None:
    """Minus one sample divided by none at each visit, and the status was never written again."""
    told = after(3, PodUsage(0.2, 200 * MIB)).as_status() | edited

    found = remembered({"usage": told}, "t1")

    assert Usage("t1") == found
    assert 1 == found.seen(0.5, [PodUsage(0.1, MIB)]).samples
