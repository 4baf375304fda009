"""`openworkflow builds`: which build takes new runs, and what is left on the others."""

from typing import Any

import click

from openworkflow.backend.builds import Build
from openworkflow.cli import render
from openworkflow.cli.answers import answer
from openworkflow.cli.counting import counted, were
from openworkflow.cli.options import Database, database, database_options, json_option, run_async
from openworkflow_contract.retirement import Leftover


@click.group()
def builds() -> None:
    """Which build takes new runs, and what is left on the others."""


@builds.command("list")
@database_options
@json_option
def list_builds(url: str | None, namespace: str | None, schema: str | None, as_json: bool) -> None:
    """List builds, newest first, and the runs bound to each."""
    found: list[Build] = run_async(_call(database(url, namespace, schema), "list"))
    if as_json:
        render.as_json({"builds": found})
    elif found:
        render.console().print(render.builds_table(found))
    else:
        render.say("no builds: no worker was started with OPENWORKFLOW_BUILD_ID")


@builds.command()
@click.argument("build_id")
@click.option(
    "--share",
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    help="Percent of the new runs; the build in use takes the others.",
)
@database_options
@json_option
def promote(
    build_id: str,
    share: int,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Have new runs go to BUILD_ID.

    From the next claim of every worker on.
    """
    run_async(_call(database(url, namespace, schema), "promote", build_id, share))
    answer(
        as_json,
        {"build_id": build_id, "share": share},
        f"build {build_id} takes {share} % of the new runs",
    )


@builds.command()
@click.argument("build_id")
@database_options
@json_option
def hold(
    build_id: str, url: str | None, namespace: str | None, schema: str | None, as_json: bool
) -> None:
    """Take the new runs away from BUILD_ID, which fails.

    The build in use takes them.
    """
    run_async(_call(database(url, namespace, schema), "hold", build_id))
    answer(
        as_json,
        {"build_id": build_id, "share": 0},
        f"build {build_id} is held and takes no new runs",
    )


@builds.command()
@click.argument("build_id")
@click.option("--move", "leftover", flag_value="move", help="Any build continues its runs.")
@click.option("--fail", "leftover", flag_value="fail", help="Its unfinished runs fail.")
@database_options
@json_option
def retire(
    build_id: str,
    leftover: Leftover | None,
    url: str | None,
    namespace: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Forget BUILD_ID, whose workers are gone.

    Refuses while runs are left on it.
    """
    settled = run_async(
        _call(database(url, namespace, schema), "retire", build_id, leftover or "refuse")
    )
    done = {"move": "moved", "fail": "failed"}.get(leftover or "")
    answer(
        as_json,
        {"build_id": build_id, "leftover": leftover or "refuse", "runs": settled},
        f"build {build_id} is retired"
        + (f", {counted(settled, 'run')} {were(settled)} {done}" if done else ""),
    )


async def _call(where: Database, method: str, *arguments: Any) -> Any:
    async with where.connect(migrate=False) as backend:
        return await getattr(backend.builds, method)(*arguments)
