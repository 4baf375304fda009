"""What somebody set up in the database that breaks a promise without a word of PostgreSQL's.

Each row is stored, or seems to be, and nothing is refused: so it is looked for, by workers when
they start and by `openworkflow doctor`, and told loudly.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openworkflow.backend import blueprint
from openworkflow_contract.statements import quoted

TABLES = (
    "workflow_runs",
    "step_attempts",
    "workflow_messages",
    "workflow_subscriptions",
    "workflow_schedules",
    "workflow_children",
    "workflow_progress",
    "workflow_events",
    "workflow_limits",
    "workflow_keys",
)
"""Where every row counts."""

_MEANINGS = {
    "asynchronous": (
        "synchronous_commit is off for this role or database: if PostgreSQL dies, steps that were "
        "recorded are called again, and runs that were accepted may be gone",
        "ALTER ROLE ... SET synchronous_commit = on",
    ),
    "unlogged": (
        "the table {name} is unlogged: if PostgreSQL dies, all its rows are gone",
        "ALTER TABLE {name} SET LOGGED",
    ),
    "replica": (
        "session_replication_role is {name} for this role or database: triggers do not fire, so "
        "signals wake nobody",
        "ALTER ROLE ... RESET session_replication_role; and see ALTER DATABASE",
    ),
    "disabled": (
        "the trigger {name} is disabled or gone: what runs wait for, or what is kept of them, is "
        "not as it is promised",
        "ALTER TABLE ... ENABLE TRIGGER {name}",
    ),
    "hidden": (
        "row security of {name} is on, and nobody arranged it: it hides rows from this role, "
        "whose runs wait as long as it does",
        "ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, or openworkflow migrate --roles --bind",
    ),
    "before": (
        "the trigger {name} may drop rows: where it returns NULL, a step counts as recorded and is "
        "not, and is called again after a crash",
        "have it RETURN NEW, or make it an AFTER trigger",
    ),
}
"""By kind: what is found, and what to do."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """One of them; `found` and `advice` are for people."""

    kind: str
    found: str
    advice: str

    @property
    def may_be_meant(self) -> bool:
        """Whether it harms only if somebody's function does what it need not do."""
        return self.kind == "before"


async def find(
    fetch: Callable[..., Awaitable[list[Any]]], queries: Mapping[str, str], schema: str
) -> list[Distortion]:
    """What is set up in this schema, for this role; `fetch` takes SQL and its arguments.

    All our triggers count: they wake whom a signal or the end of a child is for, and give slots of
    limits on.
    """
    triggers = blueprint.triggers(blueprint.known())
    rows = await fetch(queries["find_distortions"], quoted(schema), TABLES, triggers)
    return [
        Distortion(row["kind"], *(text.format(name=row["name"]) for text in _MEANINGS[row["kind"]]))
        for row in rows
    ]
