"""docs/schema.md has every table, column, index, status and kind, so that users may rely on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openworkflow.backend.blueprint import known, made_by
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow_run import RunStatus

PAGE = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
MADE = made_by(known())
LEDGER = {"version", "name", "applied_at"}


def section(table: str) -> str:
    """What the page says under a heading that names the table."""
    (found,) = (part for part in PAGE.split("\n## ") if table in part.partition("\n")[0])
    if f"- **`{table}`**" in found:
        found = found.partition(f"- **`{table}`**")[2].partition("\n- **")[0]
    return found


def named(text: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", text))


@pytest.mark.parametrize("table", sorted(MADE.tables))
def test_every_column_of_a_table_is_on_the_page(table: str) -> None:
    columns = {column.name for column in MADE.columns if column.table == table}

    assert columns
    assert set() == columns - named(section(table))


def test_the_columns_of_the_ledger_are_on_the_page() -> None:
    assert set() == LEDGER - named(section("openworkflow_migrations"))


@pytest.mark.parametrize("table", sorted(MADE.tables))
def test_every_index_of_a_table_is_on_the_page_and_no_other(table: str) -> None:
    indexes = {index.name for index in MADE.indexes if index.table == table}

    assert indexes == {name for name in named(section(table)) if name.startswith("idx_")}


def test_every_status_and_every_kind_is_on_the_page() -> None:
    assert set() == set(RunStatus) - named(section("workflow_runs"))
    assert set() == {*StepStatus, *StepKind} - named(section("step_attempts"))


def test_the_page_names_no_table_that_is_not_there() -> None:
    headings = re.findall(r"^## (\w*_.*)$", PAGE, re.MULTILINE)

    assert {*MADE.tables, "openworkflow_migrations"} == {
        name for heading in headings for name in heading.split(", ")
    }
