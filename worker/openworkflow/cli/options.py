"""What commands share: which database, which namespace, and JSON for scripts."""

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

import click
import uvloop

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.url import parse
from openworkflow.cli.codec import client_of
from openworkflow.core.duration import parse_duration
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.json_values import parsed_json
from openworkflow.core.standing import STANDINGS
from openworkflow.core.workflow_run import RunStatus
from openworkflow.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Database:
    """Where the command works."""

    url: str
    namespace: str
    schema: str
    listen_url: str | None

    @contextlib.asynccontextmanager
    async def connect(
        self, *, migrate: bool | None = True, application_name: str = "openworkflow-cli"
    ) -> AsyncIterator[BackendPostgres]:
        """A backend for the length of a block; see BackendPostgres.connect for `migrate`."""
        backend = await BackendPostgres.connect(
            self.url,
            namespace_id=self.namespace,
            schema=self.schema,
            migrate=migrate,
            application_name=application_name,
            listen_url=self.listen_url,
        )
        try:
            yield backend
        finally:
            await backend.stop()


def database_options(command: F) -> F:
    """--url, --namespace and --schema; they win over the environment."""
    for option in (
        click.option("--schema", help="Schema of the tables. [default: public]"),
        click.option("--namespace", "-n", help="Namespace of the runs. [default: default]"),
        click.option("--url", help="Database URL. [default: DATABASE_URL]"),
    ):
        command = option(command)
    return command


def json_option(command: F) -> F:
    """--json."""
    option: Callable[[F], F] = click.option(
        "--json", "as_json", is_flag=True, help="JSON, for scripts."
    )
    return option(command)


def database(
    url: str | None, namespace: str | None, schema: str | None, *, warn: bool = True
) -> Database:
    """The options, and the environment for what they leave open.

    Unless `warn` is False, a password in the list of processes is warned of.
    """
    for option, given in {"--url": url, "--namespace": namespace, "--schema": schema}.items():
        if given == "":  # as of a shell's variable that is not set: the default would be a guess
            raise ConfigurationError(f"{option} is empty: give it a value, or leave it out")
    settings = Settings.from_env()
    chosen = url or settings.database_url
    if chosen is None:
        raise ConfigurationError(
            "which database? set DATABASE_URL or give --url, for example "
            "postgresql://user@localhost:5432/database; `openworkflow dev` needs none"
        )
    if warn and url is not None and parse(url).password:
        click.echo(
            "warning: others on this machine see the password of --url in its list of processes; "
            "set DATABASE_URL instead",
            err=True,
        )
    return Database(
        chosen, namespace or settings.namespace, schema or settings.schema, settings.listen_url
    )


def run_async(operation: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return uvloop.run(operation)


async def with_client(where: Database, method: str, /, *arguments: Any, **options: Any) -> Any:
    """What a method of the client, or of a part of it such as `schedules.list`, returns."""
    async with where.connect(migrate=False) as backend:
        return await attrgetter(method)(client_of(backend))(*arguments, **options)


def parse_json(option: str, text: str | None, name: str = "") -> Any:
    """The value of an option that is JSON, after `name` if one leads it; None without one."""
    if text is None:
        return None
    try:
        return parsed_json(option, text)
    except ConfigurationError as error:
        raise click.UsageError(
            f"{error}; in a shell, quote it: {option} '{name}{{\"id\": 1}}', "
            f"and text twice: {option} '{name}\"yes\"'"
        ) from None


class RunId(click.ParamType[UUID]):
    """A run's id."""

    name = "run-id"

    def convert(self, value: Any, param: Any, ctx: Any) -> UUID:
        """Refuse what is no UUID."""
        try:
            return UUID(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a run id, such as 0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a")


class StatusChoice(click.Choice[str]):
    """A status of runs; a word for where one stands is told from it."""

    def __init__(self) -> None:
        super().__init__([status.value for status in RunStatus])

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Refuse what is no status."""
        if value in STANDINGS:
            known = ", ".join(self.choices)
            self.fail(f"{value!r} is where a run stands, and no status: {known}", param, ctx)
        return super().convert(value, param, ctx)


class DurationText(click.ParamType[timedelta]):
    """A length of time, such as 90s or 30d; a bare number is seconds, or refused."""

    name = "duration"

    def __init__(self, *, bare: bool = True) -> None:
        self._bare = bare

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Refuse what is no duration."""
        if not self._bare and str(value).strip().replace(".", "", 1).isdigit():
            self.fail(f"{value} of what? give a unit, such as {value}d for days or {value}s")
        try:
            return parse_duration(float(value) if str(value).isdigit() else value)
        except ConfigurationError as error:
            self.fail(str(error))
