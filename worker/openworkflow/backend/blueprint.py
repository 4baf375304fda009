"""The migrations as files, and the tables, columns and indexes that they add up to. Pure.

A migration is a numbered file of `sql/migrations` whose head may say what it is:

    -- openworkflow: additive
    -- openworkflow: additive, concurrently

*additive*: programs that do not know it work on as before. A migration that does not say so raises
the contract, and programs that do not know it refuse the schema.
*concurrently*: it makes indexes on tables that may have rows, by CREATE INDEX CONCURRENTLY only.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from openworkflow_contract.statements import quoted

TABLES = ("workflow_runs", "step_attempts")

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_WORDS = re.compile(r"^-- openworkflow: (.+)$", re.MULTILINE)
_KNOWN_WORDS = frozenset({"additive", "concurrently"})
_END = re.compile(r";[ \t]*(?:\n|\Z)")
_BODY = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMENT = re.compile(r"--.*")
_CREATE_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*)\)", re.DOTALL)
_ALTER_TABLE = re.compile(r"ALTER TABLE (\w+)\b")
_CREATE_TRIGGER = re.compile(
    r"CREATE (?:CONSTRAINT )?TRIGGER \w+\s+(?:AFTER|BEFORE) \w+(?: OF \w+)? ON (\w+)"
)
_TRIGGER_NAME = re.compile(r"^CREATE (?:CONSTRAINT )?TRIGGER (\w+)", re.MULTILINE)
_ADD_COLUMN = re.compile(r"ADD COLUMN (\w+) ([^,]+)")
_CREATE_INDEX = re.compile(
    r"CREATE (?P<unique>UNIQUE )?INDEX (?:CONCURRENTLY )?(?P<name>\w+)\s+"
    r"ON (?P<table>\w+)(?P<rest>.*)",
    re.DOTALL,
)
_NO_COLUMN = ("PRIMARY", "UNIQUE", "CONSTRAINT", "FOREIGN", "CHECK", "EXCLUDE")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the SQL of its type, default and constraints."""

    table: str
    name: str
    definition: str

    def statement(self, schema: str) -> str:
        """The SQL that makes it."""
        return f"ALTER TABLE {quoted(schema)}.{self.table} ADD COLUMN {self.name} {self.definition}"


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table."""

    table: str
    name: str
    unique: bool
    definition: str
    """The rest of the statement, after the name of the table."""

    def statement(self, schema: str, *, concurrently: bool) -> str:
        """The SQL that makes it; `concurrently` it holds up nobody and needs no transaction."""
        kind = f"CREATE {'UNIQUE ' if self.unique else ''}INDEX{' CONCURRENTLY' * concurrently}"
        return f"{kind} {self.name} ON {quoted(schema)}.{self.table} {self.definition}"


@dataclass(frozen=True, slots=True)
class Made:
    """Tables, columns and indexes, as migrations make them."""

    tables: dict[str, str]
    """The SQL of each, by its name."""
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file of `sql/migrations`."""

    version: int
    name: str
    sql: str

    @property
    def additive(self) -> bool:
        """Whether programs that do not know it work on as before."""
        return "additive" in self._words()

    @property
    def concurrently(self) -> bool:
        """Whether it makes indexes while others write to the tables."""
        if "concurrently" not in self._words():
            return False
        if len(statements(self.sql)) > len(self.makes.indexes):
            raise ValueError(f"migration {self.version:04d} is to make indexes only")
        return True

    @property
    def number(self) -> int:
        """Number in the ledger, below zero if the migration is additive.

        So the highest number there is the contract, also for programs that were made before there
        was one: they refuse a number that is higher than the newest migration they know.
        """
        return -self.version if self.additive else self.version

    @property
    def in_transaction(self) -> str:
        """SQL for a transaction, where indexes cannot be made concurrently."""
        return self.sql.replace("INDEX CONCURRENTLY", "INDEX")

    @property
    def locks(self) -> tuple[str, ...]:
        """The tables that it changes."""
        altered = _ALTER_TABLE.findall(self.sql) + _CREATE_TRIGGER.findall(self.sql)
        indexed = (index.table for index in self.makes.indexes)
        return tuple(sorted({*altered, *self.makes.tables, *indexed}))

    @property
    def makes(self) -> "Made":
        """The tables, columns and indexes of this migration."""
        return made_by([self])

    def _words(self) -> frozenset[str]:
        words = frozenset(word for line in _WORDS.findall(self.sql) for word in line.split(", "))
        if unknown := words - _KNOWN_WORDS:
            raise ValueError(f"migration {self.version:04d} says {sorted(unknown)} of itself")
        return words


@cache
def known() -> tuple[Migration, ...]:
    """The migrations this version of the code has, in order."""
    folder = resources.files("openworkflow.backend") / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


def triggers(migrations: Iterable[Migration]) -> tuple[str, ...]:
    """The triggers that these migrations make, each once."""
    return tuple(
        dict.fromkeys(name for each in migrations for name in _TRIGGER_NAME.findall(each.sql))
    )


def made_by(migrations: Iterable[Migration]) -> Made:
    """The tables, columns and indexes that these migrations make."""
    return _made_by(tuple(migrations))


@cache
def _made_by(migrations: tuple[Migration, ...]) -> Made:
    tables: dict[str, str] = {}
    columns: list[Column] = []
    indexes: list[Index] = []
    for migration in migrations:
        for statement in statements(migration.sql):
            if table := _CREATE_TABLE.match(statement):
                tables[table[1]] = statement
                columns += _columns_of_table(table[1], table[2])
            elif altered := _ALTER_TABLE.match(statement):
                columns += [Column(altered[1], *found) for found in _ADD_COLUMN.findall(statement)]
            elif index := _CREATE_INDEX.match(statement):
                unique = index["unique"] is not None
                indexes.append(Index(index["table"], index["name"], unique, index["rest"].strip()))
    return Made(tables, tuple(columns), tuple(indexes))


def statements(sql: str) -> list[str]:
    """Each statement on one line, without comments, and without the bodies of functions."""
    bare = _BODY.sub("''", sql + "\n")
    whole = (" ".join(_COMMENT.sub("", part).split()) for part in _END.split(bare))
    return [statement for statement in whole if statement]


def _columns_of_table(table: str, body: str) -> list[Column]:
    parts = (part.strip().partition(" ") for part in re.split(r",(?![^(]*\))", body))
    return [Column(table, name, rest) for name, _, rest in parts if name not in _NO_COLUMN]
