"""Each broken copy of the engine is caught by the campaign's checker; a sound one passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.more_mutations import MORE_MUTATIONS
from tests.chaos.mutations import MUTATIONS
from tests.chaos.scenarios import SCENARIOS

CHAOS = os.environ.get("OPENWORKFLOW_CHAOS")
pytestmark = pytest.mark.skipif(not CHAOS, reason="depends on timing; make chaos-tests")
COPIES = [name for name in MUTATIONS if CHAOS != "short" or name not in MORE_MUTATIONS]
"""A landing has no time for the others: some of their runs never end, and are waited for."""


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_sound_engine_passes(scenario: str, database_url: str, tmp_path: Path) -> None:
    evidence = await SCENARIOS[scenario](database_url, tmp_path, "")

    assert () == check(evidence).violations, (tmp_path / "workers.log").read_text()[-4000:]
    assert evidence.calls


@pytest.mark.parametrize("defect", COPIES)
async def test_a_broken_copy_is_caught(defect: str, database_url: str, tmp_path: Path) -> None:
    evidence = await SCENARIOS[MUTATIONS[defect].scenario](database_url, tmp_path, defect)

    verdict = check(evidence)
    log = (tmp_path / "workers.log").read_text()[-4000:]
    assert MUTATIONS[defect].rule in verdict.rules, f"{verdict.violations}\n{log}"
