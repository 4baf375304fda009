"""The operator's page names every reason, setting and metric there is, as it is."""

from __future__ import annotations

import ast
import contextlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

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


def test_every_reason_is_explained_for_each_condition_that_may_have_it() -> None:
    """Where both are written out; the table has a condition's name in its first row only."""
    table: dict[str, set[str]] = {}
    kind = ""
    for line in PAGE.partition("## Conditions")[2].partition("## Events")[0].splitlines():
        if line.startswith("| "):
            _, first, second, *_ = line.split("|")
            kind = first.strip(" `") or kind
            table.setdefault(kind, set()).update(re.findall(r"`(\w+)`", second))
    told = set[tuple[str, str]]()
    for module in (status, objects, schedules, workers):
        for function in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(function, ast.FunctionDef):
                told |= _told_by(function, vars(module))

    assert {("ScalingActive", "Following"), ("WorkersAvailable", "NotCreated")} < told
    assert [] == sorted((kind, reason) for kind, reason in told if reason not in table[kind])


def _told_by(function: ast.FunctionDef, names: dict[str, Any]) -> set[tuple[str, str]]:
    """Type and reason of the conditions that it makes."""
    known: dict[str, Any] = {k: v for k, v in names.items() if isinstance(v, str | type)}
    for each in ast.walk(function):
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Tuple):
            values = each.value.elts if isinstance(each.value, ast.Tuple) else ()
            pairs = zip(each.targets[0].elts, values, strict=False)
            known |= {ast.unparse(k): v.value for k, v in pairs if isinstance(v, ast.Constant)}
        elif isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant):
            known[ast.unparse(each.targets[0])] = each.value.value
    made = [
        each
        for each in ast.walk(function)
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "Condition"
    ]
    found = set()
    for call in made:
        with contextlib.suppress(NameError, AttributeError, TypeError):
            kind, _, reason, *_ = (eval(ast.unparse(each), {}, known) for each in call.args[:3])
            found.add((str(kind), str(reason)))
    return {pair for pair in found if pair[1] != "Conflict"}


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
