"""`runs retry|cancel|pause|resume|delete --where`: one action on all runs that a filter means."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import click

from openworkflow.backend.filtering import Action
from openworkflow.cli import render
from openworkflow.cli.answers import answer
from openworkflow.cli.counting import counted
from openworkflow.cli.options import Database, run_async
from openworkflow.cli.progress import progress
from openworkflow.client import OpenWorkflow

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of a bulk command say."""

    where: str | None
    dry_run: bool
    per_second: float | None
    cursor: str | None
    yes: bool


def bulk_options(command: F) -> F:
    """--where and what goes with it, as one Wish."""

    def with_wish(
        *arguments: Any,
        where: str | None,
        dry_run: bool,
        per_second: float | None,
        cursor: str | None,
        yes: bool,
        **options: Any,
    ) -> Any:
        wish = Wish(where, dry_run, per_second, cursor, yes)
        return command(*arguments, wish=wish, **options)

    with_wish.__name__, with_wish.__doc__ = command.__name__, command.__doc__
    with_wish.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = with_wish
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask, as on a terminal."),
        click.option("--after", "cursor", help="Go on where one that was cut short ended."),
        click.option("--per-second", type=click.FloatRange(0, min_open=True), help="No faster."),
        click.option("--dry-run", is_flag=True, help="Say how many there are, and do nothing."),
        click.option("--where", help="All runs that this filter means; see docs/control.md."),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def single(run_id: UUID | None, wish: Wish) -> UUID | None:
    """The one run that is meant; None for a filter. Refuses both, and neither."""
    if (run_id is None) == (wish.where is None):
        raise click.UsageError("which runs? give a run's id, or --where")
    if run_id is not None and (wish.dry_run or wish.per_second or wish.cursor):
        raise click.UsageError("--dry-run, --per-second and --after go with --where")
    return run_id


def in_bulk(
    where: Database,
    action: Action,
    wish: Wish,
    json_wanted: bool,
    *,
    reason: str | None = None,
    by: str | None = None,
) -> None:
    """Count, ask on a terminal, and act."""
    assert wish.where is not None
    found = run_async(_count(where, action, wish.where))
    if wish.dry_run:
        answer(
            json_wanted,
            {"found": found, "done": 0, "left": 0, "next": None},
            f"{counted(found, 'run')} would be meant by {action}",
        )
        return
    if found and not wish.yes and sys.stdin and sys.stdin.isatty():
        click.confirm(f"{action} {counted(found, 'run')}?", abort=True, err=True)
    acting = _Acting(action, wish, found)
    try:
        run_async(acting.act(where, reason, by))
    except BaseException:
        acting.tell_how_far(json_wanted)
        raise
    acting.tell(json_wanted)


async def _count(where: Database, action: Action, text: str) -> int:
    async with where.connect(migrate=False) as backend:
        return await OpenWorkflow(backend).count_runs(text, action)


class _Acting:
    """One action on the runs of a filter, and how far it has come."""

    def __init__(self, action: Action, wish: Wish, found: int) -> None:
        self._action, self._wish, self._found = action, wish, found
        self._done, self._left, self._cursor = 0, 0, wish.cursor

    async def act(self, where: Database, reason: str | None, by: str | None) -> None:
        """Act on all of them, with the progress where somebody looks."""
        wish = self._wish
        assert wish.where is not None
        async with where.connect(migrate=False) as backend:
            steps = OpenWorkflow(backend).bulk(
                self._action,
                wish.where,
                per_second=wish.per_second,
                cursor=wish.cursor,
                reason=reason,
                by=by,
            )
            with progress(self._action, self._found) as so_far:
                async for step in steps:
                    self._done, self._left, self._cursor = step.done, step.passed, step.cursor
                    so_far(step.done + step.passed)

    def tell(self, json_wanted: bool) -> None:
        """Say what was done."""
        sentence = f"{self._action}: {counted(self._done, 'run')}"
        if self._left:
            sentence += f"; {self._left} had changed meanwhile, and were left"
        answer(json_wanted, self._document(None), sentence)

    def tell_how_far(self, json_wanted: bool) -> None:
        """Say what was done before it was cut short, and how to go on."""
        if json_wanted:
            render.as_json(self._document(self._cursor))
            return
        render.say(f"{self._action}: {counted(self._done, 'run')}, then it was cut short", err=True)
        if self._cursor is not None:
            render.say(f"go on with: --after {self._cursor}", err=True)

    def _document(self, cursor: str | None) -> dict[str, Any]:
        numbers = {"found": self._found, "done": self._done, "left": self._left}
        return {**numbers, "next": cursor}
