"""Limits of one namespace, and what is in use of them: `BackendPostgres.limits`.

Which runs may begin is decided in the database, by the trigger of migration 0013; turns of steps
follow their limit by that of 0022.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from openworkflow.backend.liveness import SCAN_SECONDS
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.requests import Requests
from openworkflow.backend.turns import Turns
from openworkflow.core.limits import LimitRule


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit, and how it stands."""

    name: str
    slots: int | None
    """How many at once for each key; None: any number."""
    rate: int | None
    rate_seconds: float | None
    burst: int | None
    workflow_name: str | None
    """The workflow that has it for itself; None for one that is shared, or not of the code."""
    is_set: bool
    """Whether somebody has set it to something else than the code says, if that says anything."""
    is_declared: bool
    """Whether the code of workers says it."""
    paused_until: datetime | None
    pause_reason: str | None
    used: int
    """Runs that have a slot."""
    waiting: int
    """Runs that are due and wait, for this limit or for another that they have as well."""
    keys: int
    """Keys for which something is in use."""


class LimitTable:
    """The limits of one namespace."""

    def __init__(
        self, requests: Requests, queries: Mapping[str, str], namespace: Namespace
    ) -> None:
        self._fetch, self._sql, self._namespace_id = requests.fetch, queries, namespace.id
        self._known: set[LimitRule] = set()
        self._told: set[LimitRule] = set()
        self.turns = Turns(requests, queries, namespace, self.tell)

    @property
    def is_used(self) -> bool:
        """Whether steps are called here at rates that the code says."""
        return bool(self._told)

    async def tell(self, rule: LimitRule) -> None:
        """Have a limit of steps be as the code says, once."""
        if rule not in self._told:
            await self._fetch(self._sql["tell_limit"], self._namespace_id, *_columns([rule]))
            self._told.add(rule)

    async def ensure(self, rules: Sequence[LimitRule]) -> None:
        """Store those that nobody has told of yet, before the first run that names them."""
        if self._known.issuperset(rules):
            return
        await self._fetch(self._sql["ensure_limits"], self._namespace_id, *_columns(rules))
        self._known.update(rules)

    async def declare(self, rules: Sequence[LimitRule], workflows: Sequence[str]) -> None:
        """Have the limits of these workflows be as their code says; repeat it.

        One that was set by hand stays so. What is in use is counted afresh. Raises BackendError.
        """
        place = self._namespace_id
        if rules:
            await self._fetch(self._sql["declare_limits"], place, *_columns(rules))
        names = [rule.name for rule in rules]
        await self._fetch(self._sql["retire_limits"], place, list(workflows), names)
        await self._fetch(self._sql["forget_keys"], place)

    async def adopt(self, run_id: UUID, claim_no: int, limits: str, worker_id: str) -> None:
        """Hand back a run that did not name its limits, so that it waits for them."""
        claim = run_id, claim_no, limits, worker_id
        await self._fetch(self._sql["adopt_limits"], self._namespace_id, *claim)

    async def list(self) -> list[LimitState]:
        """All limits by name."""
        rows = await self._fetch(self._sql["list_limits"], self._namespace_id, seconds=SCAN_SECONDS)
        return [LimitState(**row) for row in rows]

    async def set(self, rule: LimitRule) -> None:
        """Make a limit this, whatever the code says, from now on."""
        await self._fetch(self._sql["set_limit"], self._namespace_id, *_row(rule))

    async def delete(self, name: str) -> bool:
        """Have a limit be as the code says, or be no more; False if it was not set."""
        rows = await self._fetch(self._sql["delete_limit"], self._namespace_id, name)
        return bool(rows)

    async def pause(self, name: str, until: datetime | None, seconds: float | None) -> bool:
        """Let nothing begin until then, or for some seconds; False if there is no such limit."""
        rows = await self._fetch(self._sql["pause_limit"], self._namespace_id, name, until, seconds)
        return bool(rows)


def _row(rule: LimitRule) -> tuple[object, ...]:
    return rule.name, rule.slots, rule.rate, rule.rate_seconds, rule.burst


def _columns(rules: Sequence[LimitRule]) -> list[list[object]]:
    rows = [(*_row(rule), rule.workflow_name) for rule in sorted(rules, key=lambda r: r.name)]
    return [list(column) for column in zip(*rows, strict=True)]
