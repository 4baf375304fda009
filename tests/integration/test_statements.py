"""Every SQL statement is one PostgreSQL accepts, and every one is used."""

import itertools
import re
from pathlib import Path

import asyncpg
import pytest

import openworkflow.backend
from openworkflow.backend import queries
from openworkflow.backend.session import Parts, flush_statement

PACKAGE = Path(openworkflow.backend.__file__).parent
STATEMENTS = queries.load("public")
PARTS = [name for name in STATEMENTS if name.startswith("flush_")]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in PARTS])
async def test_every_named_statement_prepares_against_the_schema(
    database_url: str, name: str
) -> None:
    connection = await asyncpg.connect(database_url)

    await connection.prepare(STATEMENTS[name])
    await connection.close()


async def test_every_combination_of_flush_parts_prepares_against_the_schema(
    database_url: str,
) -> None:
    connection = await asyncpg.connect(database_url)

    for chosen in itertools.product((False, True), repeat=len(Parts._fields)):
        parts = Parts(*chosen)
        if parts.steps or not parts.updates:
            await connection.prepare(flush_statement(STATEMENTS, parts))
    await connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_named_statement_is_used_exactly_once(name: str) -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))

    assert len(re.findall(rf'(?:_sql|queries)\["{name}"\]|"{name}": ', code)) == 1


def test_statements_name_their_tables_with_the_schema() -> None:
    for name, statement in queries.load('my "own" schema').items():
        code = re.sub(r"--.*|'[^']*'", "", statement)

        assert not re.search(r"(?<![._])\b(workflow_runs|step_attempts)\b", code), name
