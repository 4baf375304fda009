"""What migrations may be, read from their files."""

import re

import pytest

from openworkflow.backend.blueprint import Migration, known, made_by, statements
from tests.migrating import migration

ADDITIVE = [one for one in known() if one.additive]
ADDED_COLUMN = re.compile(r"ADD COLUMN \w+ (?:(?!NOT NULL)[^,])+(?:NOT NULL DEFAULT [^,]+)?(?:,|$)")
ADDS = (
    "CREATE TABLE ",
    "CREATE INDEX ",
    "COMMENT ON ",
    "CREATE OR REPLACE FUNCTION ",
    "CREATE TRIGGER ",
    "CREATE CONSTRAINT TRIGGER ",
)


def test_migrations_are_numbered_without_gaps() -> None:
    assert list(range(1, len(known()) + 1)) == [one.version for one in known()]


def test_the_contract_is_the_highest_number_of_those_that_are_not_additive() -> None:
    later = migration(9, "later", "ALTER TABLE workflow_runs ADD COLUMN a INT;")

    assert [1, 2, -9] == [one.number for one in (*known()[:2], later)]
    assert 9 == migration(9, "breaking", "ALTER TABLE workflow_runs DROP COLUMN a;", "").number


@pytest.mark.parametrize("one", ADDITIVE, ids=lambda one: one.name)
def test_an_additive_migration_only_adds(one: Migration) -> None:
    for statement in statements(one.sql):
        if statement.startswith("ALTER TABLE"):
            added = statement.split(" ", 3)[3]
            assert "" == ADDED_COLUMN.sub("", added).strip(), statement
        elif statement.startswith("DROP TABLE IF EXISTS "):  # what outlived the runs it was of
            dropped = statement.removeprefix("DROP TABLE IF EXISTS ").split(", ")
            assert set(dropped) <= set(one.makes.tables)
        elif statement.startswith("CREATE UNIQUE INDEX "):
            assert statement.split(" ON ")[1].split(" ")[0] in one.makes.tables
        else:
            assert statement.startswith(ADDS), statement


@pytest.mark.parametrize("one", ADDITIVE, ids=lambda one: one.name)
def test_a_migration_locks_one_table_that_was_there_before(one: Migration) -> None:
    """A worker that holds the second and waits for the first would deadlock with it."""
    before = made_by([each for each in known() if each.version < one.version]).tables

    assert 1 >= len([table for table in one.locks if table in before])


@pytest.mark.parametrize("one", ADDITIVE, ids=lambda one: one.name)
def test_an_index_on_a_table_that_was_there_before_is_made_concurrently(one: Migration) -> None:
    before = made_by([each for each in known() if each.version < one.version]).tables

    assert one.concurrently or not any(index.table in before for index in one.makes.indexes)


def test_a_word_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"migration 0009 says .*'addditive'"):
        _ = migration(9, "later", "", "addditive").number


def test_a_concurrent_migration_makes_indexes_only() -> None:
    both = "CREATE INDEX CONCURRENTLY a ON b (c);\nALTER TABLE b ADD COLUMN d INT;"

    with pytest.raises(ValueError, match=r"migration 0009 .* indexes only"):
        _ = migration(9, "later", both, "additive, concurrently").concurrently


def test_comments_and_line_breaks_of_a_statement_do_not_matter() -> None:
    made = migration(
        9,
        "later",
        "CREATE TABLE t (\n  -- the key; of all\n  id INT,\n  n NUMERIC(3, 1) NOT NULL,\n"
        "  PRIMARY KEY (id, n)\n);\nALTER TABLE u\n  ADD COLUMN a INT, -- one\n"
        "  ADD COLUMN b TEXT NOT NULL DEFAULT 'x';\n"
        "CREATE UNIQUE INDEX i\n  ON t (n)\n  WHERE id > 1;",
    ).makes

    assert ["t"] == list(made.tables)
    assert [("t", "id"), ("t", "n"), ("u", "a"), ("u", "b")] == [
        (column.table, column.name) for column in made.columns
    ]
    assert ["NUMERIC(3, 1) NOT NULL", "INT", "TEXT NOT NULL DEFAULT 'x'"] == [
        column.definition for column in made.columns[1:]
    ]
    assert 'CREATE UNIQUE INDEX CONCURRENTLY i ON "s".t (n) WHERE id > 1' == made.indexes[
        0
    ].statement("s", concurrently=True)
