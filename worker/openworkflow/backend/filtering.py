"""Runs that a filter means: listed, counted, and handed out in chunks to whoever acts on them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from openworkflow.backend.connection import set_local
from openworkflow.backend.liveness import SCAN_SECONDS
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.records import Page
from openworkflow.backend.requests import Requests
from openworkflow.backend.rows import page_of
from openworkflow.core.asked import page_size
from openworkflow.core.cursor import read_cursor
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.filters import FIELDS, Kind, Term
from openworkflow.core.shown import shown
from openworkflow_contract.statements import numbered

Action = Literal["retry", "cancel", "pause", "resume", "delete"]

ACTIONABLE: Mapping[Action, str] = {
    "retry": "where_retryable",
    "cancel": "where_unfinished",
    "pause": "where_pausable",
    "resume": "where_resumable",
    "delete": "where_finished",
}
"""To which runs an action does anything at all."""
_HELD, _LIMITED = "where_held", "where_limited"
_BRIEF = "where_brief"
COLUMNS = {
    "status": "status",
    "workflow": "workflow_name",
    "version": "coalesce(version, '')",
    "worker": "coalesce(worker_id, '')",
    "build": "coalesce(build_id, '')",
    "key": "coalesce(idempotency_key, '')",
    "error": "coalesce(error ->> 'type', '')",
    "id": "id",
    "forked": "forked_from",
    "parent": "parent_run_id",
    "created": "created_at",
    "started": "started_at",
    "ended": "completed_at",
    "due": "available_at",
    "attempts": "attempts",
    "priority": "coalesce(priority, 0)",
    "crashes": "crashes",
    "undo_failed": "coalesce(error -> 'undo' -> 'not_undone' <> '{}', false)",
    "paused": _HELD,
    "limited": _LIMITED,
}
_IN_ERROR = "coalesce((error ->> 'type') || ': ' || (error ->> 'message'), error::text, '')"
AMONG = 4
"""How many times as many runs as a page has are looked at before all are."""
_NO_ID = UUID(int=0)
_ONE_OF = "where_one_of"
_STATED: Mapping[frozenset[object], str] = {
    frozenset({"failed"}): "where_failed",
    frozenset({"pending"}): "where_pending",
    frozenset({"running"}): "where_running",
}
"""Statuses that are said as they stand in the conditions of their indexes."""
_PARAMETER = re.compile(r"(?<!:):(\w+)")


def check_action(action: object) -> None:
    """Refuse what is no action. Raises ConfigurationError."""
    if not isinstance(action, str) or action not in ACTIONABLE:
        raise ConfigurationError(
            f"there is no action {shown(action)}; there are {', '.join(ACTIONABLE)}"
        )


class Filtering:
    """Finds runs of one namespace by filters."""

    def __init__(
        self, requests: Requests, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._requests, self._sql, self._namespace = requests, queries, namespace

    async def page(self, terms: Sequence[Term], limit: int, cursor: str | None) -> Page:
        """A page of runs, newest first. Raises ConfigurationError and BackendError."""
        sql, arguments = self._listed("where_list", terms, limit, cursor)
        rows = await self._requests.fetch(sql, *arguments, seconds=SCAN_SECONDS)
        return page_of(rows, limit)

    async def brief(
        self, terms: Sequence[Term], limit: int, cursor: str | None, within: float
    ) -> Page:
        """A page without inputs and outputs, which may be large.

        The server gives up after `within` seconds: a BackendError of Fault.SIZE. Where most runs
        are meant, and no index knows which, the page is found among the newest.
        """
        sql, arguments = self._listed(_BRIEF, terms, limit, cursor)
        if not any(map(_is_indexed, terms)):
            wanted = (None, None, *_after(cursor), AMONG * (limit + 1))
            rows = await self._requests.fetch_once(
                self._sql["board_ids"], self._namespace.id, *wanted
            )
            among = [row["id"] for row in rows]
            near, found = self._listed(_BRIEF, terms, limit, cursor, among=among)
            rows = await self._requests.fetch_once(near, *found)
            if len(rows) > limit or len(among) < wanted[-1]:
                return page_of(rows, limit)
        async with self._requests.borrow() as connection, connection.transaction():
            await connection.execute(set_local({"statement_timeout": f"'{int(within * 1000)}ms'"}))
            return page_of(await connection.fetch(sql, *arguments), limit)

    async def count(
        self, terms: Sequence[Term], action: Action | None = None, began: datetime | None = None
    ) -> int:
        """How many runs are meant; with an action those to which it does anything."""
        rows = await self._ask("where_count", terms, action, began=began)
        return int(rows[0]["count"])

    async def chunk(
        self,
        terms: Sequence[Term],
        action: Action,
        *,
        began: datetime,
        after: UUID | None,
        limit: int,
    ) -> list[UUID]:
        """The next runs for an action that began then, in the order of their ids."""
        last = _NO_ID if after is None else after
        rows = await self._ask("where_chunk", terms, action, began=began, id=last, limit=limit)
        return [row["id"] for row in rows]

    async def delete(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """Delete those of these runs that have ended; returns which."""
        sql, ids = self._sql["delete_runs"], list(run_ids)
        rows = await self._requests.fetch(sql, self._namespace.id, ids, seconds=SCAN_SECONDS)
        return [row["id"] for row in rows]

    def _listed(
        self, block: str, terms: Sequence[Term], limit: int, cursor: str | None, **given: Any
    ) -> tuple[str, list[Any]]:
        """The statement of a page, of the runs `among` these if they are given."""
        page_size(limit)
        at, last = _after(cursor)
        given |= {"at": at, "id": last, "limit": limit + 1}
        return self._composed(block, terms, None, given)

    async def _ask(
        self, block: str, terms: Sequence[Term], action: Action | None, **given: Any
    ) -> list[Any]:
        sql, arguments = self._composed(block, terms, action, given)
        return await self._requests.fetch(sql, *arguments, seconds=SCAN_SECONDS)

    def _composed(
        self, block: str, terms: Sequence[Term], action: Action | None, given: Mapping[str, Any]
    ) -> tuple[str, list[Any]]:
        """A statement for these terms, and its arguments."""
        values = {"namespace_id": self._namespace.id, **given}
        first = self._sql["where_among"] if "among" in given else "true"
        where = " and ".join([first, *self._conditions(terms, values)])
        actionable = "true" if action is None else self._sql[ACTIONABLE[action]]
        text = self._sql[block].replace("{where}", where).replace("{actionable}", actionable)
        used = [name for name in dict.fromkeys(_PARAMETER.findall(text)) if name in values]
        return numbered(text, used), [values[name] for name in used]

    def _conditions(self, terms: Sequence[Term], values: dict[str, Any]) -> Iterator[str]:
        """The SQL of each term; what it compares with goes into `values`."""
        for place, term in enumerate(terms):
            parts = []
            values |= {f"path_{place}_{each}": key for each, key in enumerate(term.path)}
            for nth, (block, column, value) in enumerate(_parts(term, place)):
                values[f"value_{place}_{nth}"] = value
                sql = self._sql[block].replace(":value", f":value_{place}_{nth}")
                column = self._sql[column] if column in (_HELD, _LIMITED) else column
                parts.append(sql.replace("{column}", column))
            condition = f"({' or '.join(parts)})"
            # What is not there is not so: an absent value is among those that a negation means.
            yield f"{condition} is not true" if term.negated else condition


def _parts(term: Term, place: int) -> Iterator[tuple[str, str, Any]]:
    """A term as blocks of which one has to hold, each with its column and value."""
    column = _column(term, place)
    kind = FIELDS.get(term.field, Kind.LIKE)
    if term.operator == "~":
        found = _IN_ERROR if term.field == "error" else column
        yield "where_contains", found, [f"%{_escaped(str(value))}%" for value in term.values]
    elif term.field == "tag":
        for value in term.values:  # the whole pair, since that is what the index has
            yield "where_tag", "", json.dumps({term.path[0]: value}, ensure_ascii=False)
    elif term.field == "error":
        # The class as people know it, without its module; what PostgreSQL has written has none.
        yield _ONE_OF, f"substring({column} from '[^:]*$')", list(term.values)
    elif term.field == "status" and (block := _STATED.get(frozenset(term.values))):
        yield block, column, None
    elif kind is Kind.ID:
        yield "where_id", column, list(term.values)
    elif kind is Kind.FLAG:
        yield from (("where_flag", column, value) for value in term.values)
    elif kind is Kind.NUMBER and term.operator == ":":
        yield "where_equal", column, list(term.values)
    elif kind in (Kind.TIME, Kind.NUMBER):
        for value in term.values:
            yield _compared(term.operator, value), column, value
    elif len(term.values) == 1:
        yield "where_is", column, term.values[0]
    else:
        yield _ONE_OF, column, list(term.values)


def _is_indexed(term: Term) -> bool:
    """Whether an index knows the runs of a term, so that few of them are looked at."""
    if term.negated or term.operator != ":":
        return False
    if term.field == "status":
        return frozenset(term.values) in _STATED
    return term.field in ("id", "tag") or (term.field == "workflow" and len(term.values) == 1)


def _after(cursor: str | None) -> tuple[datetime | None, UUID | None]:
    return (None, None) if cursor in (None, "") else read_cursor(cursor)


def _compared(operator: str, value: Any) -> str:
    more = operator == ">"
    if isinstance(value, timedelta):
        return "where_older" if more else "where_younger"
    if isinstance(value, datetime):
        return "where_after" if more else "where_before"
    return "where_more" if more else "where_less"


def _column(term: Term, place: int) -> str:
    if term.field == "tag":
        return f"(tags ->> :path_{place}_0::text)"
    if term.path:
        keys = ", ".join(f":path_{place}_{each}::text" for each in range(len(term.path)))
        return f"({term.field} #>> array[{keys}])"
    return COLUMNS[term.field]


def _escaped(text: str) -> str:
    """A text in which nothing is a pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
