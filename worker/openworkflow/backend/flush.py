"""The statement of a flush: which parts it is joined from, in which order, with which parameters.

A kind of write is a line of `PARTS`: the rows of its type are read by one block of flush.sql and
written by the block of its group. The engine and the session loop over the table, so a new kind of
write is a record, a block, and a line here.
"""

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from openworkflow.backend.records import (
    KEY_SEPARATOR,
    Completion,
    Continuation,
    Disowned,
    EventWrite,
    Flush,
    Leftover,
    NewChild,
    Orphaned,
    ProgressWrite,
    RunEnd,
    StepSuccess,
    StepWrite,
    Wake,
    Write,
)
from openworkflow_contract.statements import numbered


class Part(NamedTuple):
    """How the rows of one type are read."""

    group: str
    source: str
    """The block that makes rows of the parameters `prefix`_field."""
    prefix: str
    as_text: bool = False
    """Whether the parameters are the texts of arrays, `{1,2}`, and not arrays."""


class Group(NamedTuple):
    """What is done with rows of several types, which are joined by `union all`."""

    block: str
    parameters: tuple[str, ...]
    fenced: bool
    """Whether it answers which rows it took, in a column of the group's name, if not all."""
    read: str | None = None
    """The block that reads the values of such rows and stores nothing, where they have some."""


class Arm(NamedTuple):
    """One reason for which a run may be claimed, in the order in which they are looked for."""

    name: str
    where: str
    waits: bool = False
    """Whether the runs of this claim wait; else their lease ran out."""
    limit: str | None = None
    """The parameter that limits this arm alone."""
    urgent: bool = False
    """Whether its runs have a priority of their own; in the statement where there are such."""


PARTS: Mapping[type[Write], Part] = {
    StepSuccess: Part("steps", "flush_step_successes", "success", as_text=True),
    StepWrite: Part("steps", "flush_step_writes", "step"),
    EventWrite: Part("events", "flush_event_rows", "event"),
    ProgressWrite: Part("progress", "flush_progress_rows", "progress"),
    Completion: Part("ends", "flush_completions", "completion", as_text=True),
    RunEnd: Part("ends", "flush_run_ends", "end"),
    Continuation: Part("continuations", "flush_continuation_rows", "continuation"),
    Wake: Part("wakes", "flush_wake_rows", "wake"),
    Leftover: Part("leftovers", "flush_leftover_rows", "leftover"),
    NewChild: Part("children", "flush_child_rows", "child"),
    Disowned: Part("disowned", "flush_disowned_rows", "disowned"),
    Orphaned: Part("families", "flush_orphaned_rows", "orphaned"),
}
GROUPS = {
    "steps": Group("flush_steps", ("steps_count",), fenced=True, read="flush_steps_read"),
    "events": Group(
        "flush_events", ("events_count", "events_channel"), fenced=True, read="flush_events_read"
    ),
    "progress": Group("flush_progress", ("progress_count",), True, "flush_progress_read"),
    "ends": Group(
        "flush_ends",
        ("ends_count", "done_channel", "work_channel"),
        fenced=True,
        read="flush_ends_read",
    ),
    "continuations": Group(
        "flush_continuations",
        ("continuations_count",),
        fenced=True,
        read="flush_continuations_read",
    ),
    "wakes": Group("flush_wakes", ("namespace_id", "work_channel"), fenced=False),
    "leftovers": Group("flush_leftovers", (), fenced=False),
    "children": Group(
        "flush_children",
        ("children_count", "namespace_id", "work_channel"),
        fenced=True,
        read="flush_children_read",
    ),
    "disowned": Group("flush_disowned", ("work_channel", "worker_id"), fenced=False),
    "families": Group("flush_families", ("work_channel", "worker_id"), fenced=False),
}
FENCES = {"steps": "flush_steps_first", "events": "flush_events_first"}
"""The groups whose fence is a lock that comes before whatever writes runs."""
_OWN, _DUE = "claim_own", "claim_due"
ARMS = (
    Arm("expired", "claim_expired", limit="recover_limit"),
    Arm("suspect", "claim_suspect", limit="suspect_limit"),
    Arm("urgent_own", _OWN, waits=True, limit="own_limit", urgent=True),
    Arm("urgent", _DUE, waits=True, urgent=True),
    Arm("own", _OWN, waits=True, limit="own_limit"),
    Arm("due", _DUE, waits=True),
)
COLUMNS = {
    kind: tuple(f"{part.prefix}_{name}" for name in kind._fields) for kind, part in PARTS.items()
}
CLAIM_PARAMETERS = (
    "claim_keys",
    "served_names",
    "served_versions",
    "served_priorities",
    "claim_limit",
    "own_limit",
    "recover_limit",
    "suspect_limit",
    "trusted_crashes",
    "worker_id",
    "namespace_id",
    "lease",
    "build_id",
    "pinned_keys",
    "deadline_keys",
    "deadline_seconds",
)
LONGEST_DEADLINE = 1e11
"""Seconds, three thousand years: a longer one could be no timestamp of PostgreSQL's."""


class Shape(NamedTuple):
    """What a flush consists of; flushes of one shape are one statement."""

    kinds: tuple[type[Write], ...]
    """In the order of PARTS."""
    updates: bool
    """Some of the steps end a row that was recorded as running."""
    claim: bool
    spares: bool = False
    """The claim passes over runs that refuse to be claimed."""
    limited: bool = False
    """The claim says which runs name limits."""
    urgent: bool = False
    """The claim looks first for runs with a priority of their own."""
    traced: bool = False
    """The claim says in which trace each run was started."""

    @property
    def arms(self) -> list[Arm]:
        """The arms of the claim."""
        return [arm for arm in ARMS if self.urgent or not arm.urgent]

    @property
    def groups(self) -> list[str]:
        """The groups of these kinds, each once."""
        return list(dict.fromkeys(PARTS[kind].group for kind in self.kinds))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the statement's parameters, each once."""
        names = [name for kind in self.kinds for name in COLUMNS[kind]]
        names += [name for group in self.groups for name in GROUPS[group].parameters]
        names += ["worker_id"] * any(GROUPS[group].fenced for group in self.groups)
        names += [*(CLAIM_PARAMETERS if self.claim else ()), *(["spared_ids"] * self.spares)]
        return tuple(dict.fromkeys(names))


def shape_of(flush: Flush, *, urgent: bool = False) -> Shape:
    """The shape of a flush; `urgent` says that runs with a priority of their own wait."""
    updates = any(step.update for step in flush.rows.get(StepWrite, ()))
    kinds, claim = tuple(kind for kind in PARTS if flush.rows.get(kind)), flush.claim
    if claim is None:
        return Shape(kinds, updates, claim=False)
    return Shape(kinds, updates, True, bool(claim.spared), claim.limited, urgent, claim.traced)


def statement(queries: Mapping[str, str], shape: Shape) -> str:
    """The statement for flushes of this shape."""
    answers = [*shape.groups, *(["claim"] if shape.claim else [])]
    if not answers:
        return "select clock_timestamp() as now"
    columns = ", ".join(f"{answer}.*" for answer in answers)
    select = f"select clock_timestamp() as now, {columns} from {', '.join(answers)}"  # noqa: S608
    return numbered(f"with {', '.join(_blocks(queries, shape))} {select}", shape.parameters)


def untold(sql: str) -> str:
    """A statement without its messages, for a server that has no room for any."""
    return sql.replace("pg_notify(", "textcat(")


def candidates(queries: Mapping[str, str], shape: Shape) -> tuple[str, tuple[str, ...]]:
    """The statement that says what a claim of this shape would take, and its parameters."""
    blocks = ", ".join(_arms(queries, shape))
    sql = f"with {blocks} select id from ({_joined(shape)}) as arm"  # noqa: S608
    used = tuple(name for name in shape.parameters if re.search(rf":{name}\b", sql))
    return numbered(sql, used), used


def values(flush: Flush, shape: Shape) -> dict[str, Any]:
    """The values of the statement's parameters, but for what a session always has."""
    named: dict[str, Any] = {"worker_id": flush.worker_id, "lease": flush.lease}
    for kind in shape.kinds:
        rows = flush.rows[kind]
        if kind is RunEnd:
            # In the order of their ids, as the ends of children lock the parents that they wake.
            rows = sorted(rows, key=operator.attrgetter("run_id"))
        for name, column in zip(COLUMNS[kind], zip(*rows, strict=True), strict=True):
            # unnest() fills a missing array with NULLs, which costs nothing to send.
            is_empty = column[0] is None and column.count(None) == len(column)
            as_text = PARTS[kind].as_text
            named[name] = None if is_empty else _array_text(column) if as_text else column
        count = f"{PARTS[kind].group}_count"
        named[count] = named.get(count, 0) + len(rows)
    if (claim := flush.claim) is not None:
        named["claim_keys"], named["claim_limit"] = claim.keys, claim.limit
        served = [key.partition(KEY_SEPARATOR) for key in claim.keys]
        named["served_names"] = [name for name, _, _ in served]
        named["served_versions"] = [version for _, _, version in served]
        named["served_priorities"] = [claim.priorities.get(key, 0) for key in claim.keys]
        named["own_limit"] = 0 if claim.build_id is None else claim.limit
        named["recover_limit"] = claim.limit if claim.recover else 0
        named["suspect_limit"] = claim.suspects if claim.recover else 0
        named["trusted_crashes"] = claim.trusted_crashes
        named["spared_ids"] = claim.spared
        named["build_id"], named["pinned_keys"] = claim.build_id, claim.pinned_keys
        named["deadline_keys"] = list(claim.deadlines)
        named["deadline_seconds"] = [
            min(seconds, LONGEST_DEADLINE) for seconds in claim.deadlines.values()
        ]
    return named


def _array_text(column: Sequence[Any]) -> str:
    """The text of an array of these values, which are of one type, or None.

    Floats, which are seconds, become whole microseconds: the shortest text of a float is dear.
    """
    first = column[0]
    if isinstance(first, UUID):
        return f"{{{b''.join([each.bytes for each in column]).hex(',', 16)}}}"
    if type(first) is float:
        return f"{{{repr([int(each * 1e6) for each in column])[1:-1]}}}"
    if None in column:
        return f"{{{','.join(map(_element, column))}}}"
    if type(first) is int:
        return f"{{{repr(list(column))[1:-1]}}}"
    texts = "\0".join(column)
    if texts.count("\0") >= len(column):  # one holds what PostgreSQL refuses: let it say so
        return f"{{{','.join(map(_element, column))}}}"
    escaped = texts.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{escaped}"}}'


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def lost(flush: Flush, shape: Shape, answer: Any) -> set[UUID]:
    """What the database did not take; it names what it took only if that was not all."""
    missing: set[UUID] = set()
    for group in shape.groups:
        if GROUPS[group].fenced and (taken := answer[group]) is not None:
            for kind in shape.kinds:
                if PARTS[kind].group == group:
                    missing.update(row[0] for row in flush.rows[kind])
            missing.difference_update(taken)
    return missing


def _blocks(queries: Mapping[str, str], shape: Shape) -> Iterator[str]:
    in_turn = " ".join(queries[FENCES[group]] for group in FENCES if group in shape.groups)
    for group in shape.groups:
        sources = [PARTS[kind].source for kind in shape.kinds if PARTS[kind].group == group]
        rows = " union all ".join(queries[source] for source in sources)
        yield queries[GROUPS[group].block].replace("{rows}", rows).replace("{in_turn}", in_turn)
        if group == "steps" and shape.updates:
            yield queries["flush_updates"]
    if shape.claim:
        yield from _arms(queries, shape)
        taken = queries["claim_taken"].replace("{arms}", _joined(shape))
        named, traced = ("claim_named", "claim_named_all"), ("claim_traced", "claim_traced_all")
        for place in (*named, *traced):
            asked = shape.limited if place in named else shape.traced
            taken = taken.replace(f"{{{place}_}}", queries[place] if asked else "")
        yield taken


def _arms(queries: Mapping[str, str], shape: Shape) -> Iterator[str]:
    yield queries["claim_route"]
    yield queries["claim_pauses"]
    spared = [queries["claim_spared"]] * shape.spares
    if shape.urgent:
        turns = [
            _filled(queries["claim_turn"], {"where": _where(queries, arm, *spared), "limit": limit})
            for arm, limit in ((_OWN, ":own_limit::int"), (_DUE, "1"))
        ]
        yield queries["claim_others"].replace("{turns}", " union all ".join(turns))
    for place, arm in enumerate(shape.arms):
        apart = [queries["claim_not_urgent"]] * (shape.urgent and arm.waits and not arm.urgent)
        where = _where(queries, arm.where, *spared, *apart)
        yield _arm(queries, arm, shape.arms[:place]).replace("{where}", where)


def _where(queries: Mapping[str, str], arm: str, *more: str) -> str:
    return " and ".join([queries[arm], *more])


def _filled(block: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        block = block.replace(f"{{{place}}}", text)
    return block


def _arm(queries: Mapping[str, str], arm: Arm, before: Sequence[Arm]) -> str:
    """An arm takes what those before it have left to take."""
    less = "".join(f" - (select count(*) from {each.name})" for each in before)  # noqa: S608
    limit = ":claim_limit::int" + less
    if arm.limit is not None:
        limit = f"least(:{arm.limit}::int, {limit})"
    plain = "claim_due_arm" if arm.waits else "claim_lease_arm"
    block = queries["claim_urgent_arm" if arm.urgent else plain]
    return _filled(block, {"arm": arm.name, "limit": limit})


def _joined(shape: Shape) -> str:
    return " union all ".join(f"select * from {arm.name}" for arm in shape.arms)  # noqa: S608
