"""`runs retry|cancel|pause|resume|delete --where`: one action on all runs that a filter means."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import click

from openworkflow.backend.filtering import Action
from openworkflow.cli import render
from openworkflow.cli.counting import counted
from openworkflow.cli.options import Database, run_async
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
        _tell(
            json_wanted,
            f"{counted(found, 'run')} would be meant by {action}",
            found=found,
            done=0,
        )
        return
    if found and not wish.yes and sys.stdin and sys.stdin.isatty():
        click.confirm(f"{action} {counted(found, 'run')}?", abort=True, err=True)
    done, passed = run_async(_act(where, action, wish, reason, by))
    sentence = f"{action}: {counted(done, 'run')}"
    if passed:
        sentence += f"; {passed} had changed meanwhile, and were left"
    _tell(json_wanted, sentence, found=found, done=done)


async def _count(where: Database, action: Action, text: str) -> int:
    async with where.connect(migrate=False) as backend:
        return await OpenWorkflow(backend).count_runs(text, action)


async def _act(
    where: Database, action: Action, wish: Wish, reason: str | None, by: str | None
) -> tuple[int, int]:
    assert wish.where is not None
    done, passed, cursor = 0, 0, wish.cursor
    async with where.connect(migrate=False) as backend:
        ow, rate = OpenWorkflow(backend), wish.per_second
        try:
            async for progress in ow.bulk(
                action, wish.where, per_second=rate, cursor=cursor, reason=reason, by=by
            ):
                done, passed, cursor = progress.done, progress.passed, progress.cursor
        except (Exception, asyncio.CancelledError):
            render.say(f"{action}: {counted(done, 'run')}, then it was cut short", err=True)
            if cursor is not None:
                render.say(f"go on with: --after {cursor}", err=True)
            raise
    return done, passed


def _tell(json_wanted: bool, sentence: str, **numbers: int) -> None:
    if json_wanted:
        render.as_json(numbers)
    else:
        render.say(sentence)
