"""The operator's page names every reason, setting and metric there is, as it is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from openworkflow_operator.decide.faults import NOT_APPLIED
from openworkflow_operator.decide.observation import DatabaseReason
from openworkflow_operator.decide.pods import Trouble
from openworkflow_operator.decide.scaling import Limit
from openworkflow_operator.decide.schedules import NOT_DECLARED, ScheduleReason
from openworkflow_operator.report import objects, schedules, status, workers
from openworkflow_operator.report.metrics import Metrics
from openworkflow_operator.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "operator.md").read_text()
_IN_CODE = [
    reason
    for module in (status, objects, schedules, workers)
    for reason in re.findall(
        r'Condition\(\s*"?\w+"?, "\w+", "(\w+)"', Path(str(module.__file__)).read_text()
    )
]


@pytest.mark.parametrize(
    "reason",
    sorted(
        {*DatabaseReason, *Trouble, *Limit, *ScheduleReason, NOT_APPLIED, NOT_DECLARED, *_IN_CODE}
    ),
)
def test_every_reason_is_explained(reason: str) -> None:
    rows = PAGE.partition("## Conditions")[2].partition("## Events")[0]

    assert f"`{reason}`" in rows


def test_every_setting_has_its_default() -> None:
    for field in fields(Settings):
        (default,) = re.findall(rf"\| `{PREFIX}{field.name.upper()}` \| ([^|]*) \|", PAGE)
        value = getattr(Settings(), field.name)
        if isinstance(value, bool):
            assert str(value).lower() == default
        elif isinstance(value, int | float):
            assert f"{value:g}" == default


def test_every_metric_is_documented_as_it_is() -> None:
    rows = [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` "
        f"| {family.type} | {family.documentation} |"
        for family in Metrics().registry.collect()
    ]

    assert "\n".join(rows) in PAGE
