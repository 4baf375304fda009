"""The database roles of a schema: their names, and the SQL that gives each what it may do. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

from openworkflow.backend.blueprint import statements
from openworkflow.backend.namespace import IDENTIFIER_LIMIT
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow_contract.statements import quoted

REGISTER = "openworkflow_roles"
"""The table of our roles; it is there once somebody asked for roles."""
GUARDED = (
    "workflow_runs",
    "workflow_builds",
    "workflow_served",
    "workflow_messages",
    "workflow_subscriptions",
    "workflow_progress",
    "workflow_events",
    "workflow_schedules",
    "workflow_pauses",
    "workflow_fleets",
    "workflow_children",
    "workflow_limits",
    "workflow_keys",
    "workflow_limit_keys",
    "workflow_limit_runs",
    "workflow_limit_lanes",
    "workflow_rates",
    "workflow_turns",
    "step_attempts",
    REGISTER,
)
"""The tables that row security keeps apart by namespace."""
ENABLED = "row level security"
"""Stands among the policies of a table for that they are heeded."""
OWNED = (*GUARDED, "openworkflow_migrations")
FUNCTIONS = (
    "openworkflow_message_sent",
    "openworkflow_runs_deleted",
    "openworkflow_progress_deleted",
    "openworkflow_child_added",
    "openworkflow_family_changed",
    "openworkflow_children_deleted",
    "openworkflow_child_kept",
    "openworkflow_limits_settle",
    "openworkflow_limits_changed",
)
"""The triggers that act with the rights of their owner, who is that of the tables."""

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Kind(StrEnum):
    """What a role is for."""

    OWNER = "owner"
    OPERATOR = "operator"
    WORKER = "worker"
    ENQUEUER = "enqueuer"
    READER = "reader"


GRANTABLE = tuple(kind for kind in Kind if kind is not Kind.OWNER)
"""What a role may be that is bound to a namespace: row security does not hold an owner."""


@dataclass(frozen=True, slots=True)
class Role:
    """A row of the register."""

    name: str
    kinds: tuple[Kind, ...]
    namespace_id: str | None = None
    """The only namespace that it sees; None for all."""


def shared_roles(prefix: str) -> list[Role]:
    """One role of each kind; ConfigurationError if their names would be too long."""
    storable_text("prefix", prefix, IDENTIFIER_LIMIT - len("_operator"), unit="bytes")
    return [Role(f"{prefix}_{kind}", (kind,)) for kind in Kind]


def default_prefix(database: str, schema: str) -> str:
    """Roles belong to the whole server, so their names say which database and schema is meant."""
    return f"openworkflow_{database}" + (f"_{schema}" if schema != "public" else "")


def parse_binding(text: str, namespace_id: str) -> Role:
    """`role=worker` or `role=enqueuer,reader`, for this namespace; raises ConfigurationError."""
    name, equals, words = text.rpartition("=")
    allowed = ", ".join(GRANTABLE)
    if not equals or not name:
        raise ConfigurationError(
            f"--bind takes ROLE=KIND, such as shop_worker=worker, not {text!r}; kinds: {allowed}"
        )
    storable_text("role", name, IDENTIFIER_LIMIT, unit="bytes")
    kinds = []
    for word in words.split(","):
        if word not in GRANTABLE:
            raise ConfigurationError(f"a role cannot be bound as {word!r}; kinds: {allowed}")
        kinds.append(Kind(word))
    return Role(name, tuple(dict.fromkeys(kinds)), namespace_id)


def make_register(schema: str) -> list[str]:
    """The statements that make the table of our roles."""
    return _block("register", schema)


def enter(schema: str, role: Role) -> str:
    """The statement that writes a role into the register."""
    kinds = ", ".join(literal(kind) for kind in role.kinds)
    namespace = "null" if role.namespace_id is None else literal(role.namespace_id)
    return (
        f"insert into {quoted(schema)}.{REGISTER} (role_name, kinds, namespace_id) "  # noqa: S608
        f"values ({literal(role.name)}, array[{kinds}], {namespace}) on conflict (role_name) "
        "do update set kinds = excluded.kinds, namespace_id = excluded.namespace_id"
    )


def strike(schema: str, name: str) -> str:
    """The statement that takes a role out of the register."""
    return f"delete from {quoted(schema)}.{REGISTER} where role_name = {literal(name)}"  # noqa: S608


def take_all(schema: str, name: str) -> list[str]:
    """The statements that leave a role with nothing of ours."""
    return _block("nothing", schema, role=quoted(name))


def grants(schema: str, role: Role) -> list[str]:
    """The statements that give a role what it may do, and nothing else."""
    if Kind.OWNER in role.kinds:
        return _block("owner", schema, role=quoted(role.name))
    given = [_block(kind, schema, role=quoted(role.name)) for kind in role.kinds]
    return take_all(schema, role.name) + [one for block in given for one in block]


def rights(kind: str) -> list[str]:
    """What the statements of a kind grant, such as `step_attempts DELETE`, table by table.

    A right to a column has its name too: `workflow_pauses UPDATE lock_only`.
    """
    granted: dict[str, None] = {}
    for template in statements(_blocks()[kind]):
        what, on, tables = template.removeprefix("grant ").partition(" on ")
        if not on or tables.startswith("schema "):
            continue
        for table in re.findall(r"\{schema\}\.(\w+)", tables):
            for word, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?", what):
                for column in columns.split(", "):
                    granted[f"{table} {word.upper()} {column}".rstrip()] = None
    return list(granted)


def policies(schema: str, roles: Iterable[Role]) -> dict[tuple[str, str], str]:
    """The statements of row security, by table and by what each makes."""
    seeing_all = [
        quoted(role.name)
        for role in roles
        if role.namespace_id is None and Kind.OWNER not in role.kinds
    ]
    made = {}
    for template in statements(_blocks()["policies"]):
        words = template.split()
        is_policy = words[1] == "policy"
        table = words[4 if is_policy else 2].removeprefix("{schema}.")
        made[table, words[2] if is_policy else ENABLED] = _fill(
            template, schema, all=", ".join(seeing_all)
        )
    return made


def literal(text: str) -> str:
    """An SQL string."""
    escaped = text.replace("'", "''")
    return "E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in text else f"'{escaped}'"


def _block(name: str, schema: str, **names: str) -> list[str]:
    return [_fill(template, schema, **names) for template in statements(_blocks()[name])]


def _fill(template: str, schema: str, **names: str) -> str:
    """The names may hold anything, braces too."""
    filled = {"schema": quoted(schema), **names}
    return re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], template)


@cache
def _blocks() -> dict[str, str]:
    file = resources.files("openworkflow.backend") / "sql" / "security" / "grants.sql"
    _, *blocks = _NAME.split(file.read_text("utf-8"))
    return dict(zip(blocks[::2], blocks[1::2], strict=True))
