"""A short campaign: as many kinds of faults as there is time for, in the order of a fixed seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.campaign import Options, run

pytestmark = pytest.mark.skipif(
    not os.environ.get("OPENWORKFLOW_CHAOS"), reason="depends on timing; make chaos-tests"
)


async def test_a_short_campaign_violates_nothing(tmp_path: Path) -> None:
    report = await run(Options(seconds=25, rate=3, lease=1.5, seed=11), tmp_path)

    told = "\n".join(report.lines())
    log = (tmp_path / "workers.log").read_text()[-6000:]
    assert () == report.verdict.violations, f"{told}\n{log}"
    assert len({fault.kind for fault in report.evidence.faults}) >= 8, told
    assert len(report.evidence.runs) >= 30, told
