"""Defects that are built into a worker process at its start, or into its database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openworkflow.backend import queries


@dataclass(frozen=True, slots=True)
class Mutation:
    """A defect: what it is, how it is built in, what shows it, and the rule that it violates."""

    what: str
    apply: Callable[[], None]
    scenario: str
    rule: str
    sql: str = ""
    """What builds it into the database, for what is decided there."""


def statement(*changes: tuple[str, str, str]) -> Callable[[], None]:
    """Change the text of statements."""

    def apply() -> None:
        blocks = dict(queries.read())
        for block, before, after in changes:
            assert before in blocks[block], f"{block} has no {before!r} any more"
            blocks[block] = blocks[block].replace(before, after)

        def read() -> Mapping[str, str]:
            return blocks

        patch(queries, "read", read)

    return apply


def patch(where: Any, name: str, value: Any) -> None:
    """Change a part of the engine."""
    assert hasattr(where, name), f"{where!r} has no {name} any more"
    setattr(where, name, value)


def nothing() -> None:
    """Change nothing in the worker: the defect is in the database."""


def function(name: str, before: str, after: str) -> str:
    """Change the text of a function of the database."""
    return f"""
        DO $do$ DECLARE said text := pg_get_functiondef('{name}'::regproc); BEGIN
            ASSERT strpos(said, $x${before}$x$) > 0, '{name} is another by now';
            EXECUTE replace(said, $x${before}$x$, $x${after}$x$);
        END $do$
    """


def trigger(table: str, when: str, change: str) -> str:
    """Change rows as they are written."""
    return f"""
        CREATE FUNCTION chaos_defect() RETURNS trigger LANGUAGE plpgsql AS $do$ BEGIN
            {change} RETURN new;
        END $do$;
        CREATE TRIGGER chaos_defect BEFORE {when} ON {table} FOR EACH ROW
            EXECUTE FUNCTION chaos_defect();
    """
