"""Every SQL statement of the operator is one PostgreSQL accepts, and every one is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import openworkflow_operator.database
from openworkflow_contract import statements
from openworkflow_operator.database import queries

PACKAGE = Path(openworkflow_operator.database.__file__).parent
STATEMENTS = queries.load("public")
INCLUDED = {
    match[1]
    for block in queries.read().values()
    for match in re.finditer(r"\{(\w+)\}", block)
    if match[1] in STATEMENTS
}
SENT = [name for name in STATEMENTS if name not in INCLUDED]


@pytest.mark.parametrize("name", SENT)
async def test_the_operators_statements_prepare_against_the_schema(
    sql: asyncpg.Connection[Any], name: str
) -> None:
    await sql.prepare(STATEMENTS[name])


@pytest.mark.parametrize("name", SENT)
def test_the_operators_statements_are_used_exactly_once(name: str) -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))

    assert 1 == len(re.findall(rf'"{name}"', code))


def test_the_operators_statements_name_their_tables_with_the_schema() -> None:
    for name, statement in queries.load('my "own" schema').items():
        code = re.sub(r"--.*|'[^']*'", "", statement)

        assert not re.search(r"(?<![._])\b(workflow_runs|step_attempts)\b", code), name


def test_what_both_sides_send_has_one_text() -> None:
    own = statements.read("openworkflow_operator.database")

    assert set(statements.read(statements.SHARED)) == set(queries.read()) - set(own)
