"""`openworkflow limits`: what there is, what is in use, and other values without a deploy."""

import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import click
from rich.table import Table

from openworkflow.backend.limits import LimitState
from openworkflow.cli import render
from openworkflow.cli.answers import answer
from openworkflow.cli.options import (
    Database,
    DurationText,
    database,
    database_options,
    json_option,
    run_async,
)
from openworkflow.client import OpenWorkflow
from openworkflow.client.limits import LimitClient
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.limits import Rate

T = TypeVar("T")


@click.group()
def limits() -> None:
    """See and change how many runs begin and go on at once."""


@limits.command("list")
@database_options
@json_option
def list_limits(url: str | None, namespace: str | None, schema: str | None, as_json: bool) -> None:
    """List limits, with the runs that have a slot, and those that wait."""
    found = run_async(_call(database(url, namespace, schema), lambda limits: limits.list()))
    if as_json:
        render.as_json({"limits": found})
    elif found:
        render.console().print(_table(found))
    else:
        render.say("no limits: declare one with @workflow(limits=[Limit(5)])")


@limits.command("set")
@click.argument("name")
@click.argument("slots", type=click.IntRange(0), required=False)
@click.option("--rate", type=click.IntRange(1), help="How many may begin in --per.")
@click.option("--per", type=DurationText(), help="Such as 1m. [default: 1s]")
@click.option("--burst", type=click.IntRange(1), default=1, help="How many of them at once.")
@database_options
@json_option
def set_limit(
    name: str,
    slots: int | None,
    rate: int | None,
    per: timedelta | None,
    burst: int,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Set the slots or the rate of limit NAME, whatever the code says."""
    length = per or timedelta(seconds=1)
    wanted = None if rate is None else Rate(rate, length, burst=burst)
    if slots is None and wanted is None:
        raise click.UsageError("how many? give SLOTS or --rate; to go back, limits delete")
    where = database(url, namespace, schema)

    async def set_it(limits: LimitClient) -> list[str]:
        before = [each.name for each in await limits.list()]
        await limits.set(name, slots, wanted)
        return before

    before = run_async(_call(where, set_it))
    rates = {
        "rate": rate,
        "rate_seconds": None if wanted is None else length.total_seconds(),
        "burst": None if wanted is None else burst,
    }
    what = [] if slots is None else [f"{slots} slot{'' if slots == 1 else 's'}"]
    if rate is not None:
        what.append(_rate(rate, length.total_seconds(), burst))
    said = f"limit {name} is set: {', '.join(what)}"
    said += "" if name in before else _is_new(before, name)
    answer(as_json, {"name": name, "slots": slots, **rates}, said)


@limits.command()
@click.argument("name")
@database_options
@json_option
def delete(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Have NAME be as the code says, or be no more."""
    where = database(url, namespace, schema)
    if not run_async(_call(where, lambda limits: limits.delete(name))):
        raise ConfigurationError(f"limit {name!r} is not set: it is as the code says, if there")
    answer(as_json, {"name": name, "deleted": True}, f"limit {name} is as the code says")


@limits.command()
@click.argument("name")
@click.option("--for", "length", type=DurationText(), required=True, help="How long.")
@database_options
@json_option
def pause(
    name: str,
    length: timedelta,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Let no run of limit NAME begin for a time.

    Those that have begun go on.
    """
    where = database(url, namespace, schema)
    _there(name, run_async(_call(where, lambda limits: limits.pause(name, length))))
    answer(
        as_json,
        {"name": name, "paused_seconds": length.total_seconds()},
        f"limit {name} is paused for {length}",
    )


@limits.command()
@click.argument("name")
@database_options
@json_option
def resume(
    name: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """End the pause of limit NAME."""
    where = database(url, namespace, schema)
    _there(name, run_async(_call(where, lambda limits: limits.resume(name))))
    answer(as_json, {"name": name, "resumed": True}, f"limit {name} goes on")


async def _call(where: Database, call: Callable[[LimitClient], Awaitable[T]]) -> T:
    async with where.connect(migrate=False) as backend:
        return await call(OpenWorkflow(backend).limits)


def _is_new(before: Sequence[str], name: str) -> str:
    """What is to be said of a limit that was not there: misspelt, it does nothing."""
    near = difflib.get_close_matches(name, before, 3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"; it is new, and holds for what names it, which nothing has done so far{hint}"


def _there(name: str, found: bool) -> None:
    if not found:
        raise ConfigurationError(f"there is no limit {name!r}; openworkflow limits list has them")


def _rate(count: int, seconds: float, burst: int) -> str:
    return f"{count} in {seconds:g} s" + (f", {burst} at once" if burst > 1 else "")


def _table(found: Iterable[LimitState]) -> Table:
    """A line for each limit."""
    table = render.Listing()
    for heading in ("LIMIT", "AT ONCE", "RATE", "IN USE", "WAITING", "KEYS", "SET BY", "PAUSED"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(
            each.name,
            "" if each.slots is None else str(each.slots),
            "" if each.rate is None else _rate(each.rate, each.rate_seconds or 1, each.burst or 1),
            *(str(each.used), str(each.waiting), str(each.keys)),
            "hand" if each.is_set else "code",
            "" if each.paused_until is None else f"until {render.when(each.paused_until)}",
        )
    return table
