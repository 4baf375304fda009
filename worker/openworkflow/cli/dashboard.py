"""`openworkflow dashboard`: look at runs in a browser."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from openworkflow.cli.codec import client_of, codec_option
from openworkflow.cli.options import Database, database, database_options, run_async
from openworkflow.cli.render import say
from openworkflow.client import OpenWorkflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.extras import extra_missing
from openworkflow.settings import Settings
from openworkflow.telemetry import logs

if TYPE_CHECKING:
    from openworkflow.web import Auth

PORT = 8321
TOKENS = "OPENWORKFLOW_DASHBOARD_TOKENS"
"""In the environment, since others see the options of a process."""
OPENID_SECRET = "OPENWORKFLOW_DASHBOARD_OPENID_SECRET"  # noqa: S105 (the name of a variable)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_STOP_SECONDS = 5


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--also", multiple=True, metavar="NAMESPACE", help="Another namespace; repeatable.")
@click.option("--prefix", metavar="PATH", help="Where a proxy has it; with --openid-url, of that.")
@click.option("--proxy-header", help="Header in which a proxy names who asks.")
@click.option("--proxy-from", multiple=True, metavar="NETWORK", help="Where that proxy is.")
@click.option("--proxy-role", default="viewer", show_default=True, help="What they may all do.")
@click.option("--openid", metavar="ISSUER", help="URL of an OpenID provider to log in by.")
@click.option("--openid-client", metavar="ID", help="What the provider knows the dashboard as.")
@click.option("--openid-url", metavar="URL", help="Where people find the dashboard.")
@click.option("--openid-claim", default="groups", show_default=True, help="What gives a role.")
@click.option("--openid-role", multiple=True, metavar="VALUE=ROLE", help="Repeatable; *: all.")
@codec_option
@database_options
def dashboard(
    host: str,
    port: int,
    also: tuple[str, ...],
    prefix: str | None,
    proxy_header: str | None,
    proxy_from: tuple[str, ...],
    proxy_role: str,
    openid: str | None,
    openid_client: str | None,
    openid_url: str | None,
    openid_claim: str,
    openid_role: tuple[str, ...],
    url: str | None,
    namespace: str | None,
    schema: str | None,
) -> None:
    """Serve the dashboard.

    For this machine alone, unless OPENWORKFLOW_DASHBOARD_TOKENS holds tokens, such as
    `viewer:TOKEN,ann:admin:TOKEN`, --proxy-header names whom a proxy has let in, or --openid has
    people log in elsewhere; the secret for that is OPENWORKFLOW_DASHBOARD_OPENID_SECRET.
    """
    try:
        import uvicorn  # noqa: F401

        import openworkflow.web  # noqa: F401
    except ImportError as error:
        raise extra_missing("the dashboard", "dashboard", error) from None
    auth = (
        _auth(proxy_header, proxy_from, proxy_role)
        if openid is None
        else _openid(openid, openid_client, openid_url, openid_claim, openid_role)
    )
    if auth is None and host not in _LOOPBACK:
        raise ConfigurationError(
            f"on {host} others can reach the dashboard: set {TOKENS}, for example to "
            "viewer:$(openssl rand -hex 20), or give --openid, or --proxy-header and --proxy-from; "
            "or leave --host out"
        )
    where, settings = database(url, namespace, schema), Settings.from_env()
    logs.configure(settings.log_format, settings.log_level)
    if prefix is None:
        prefix = "" if openid is None else urlsplit(openid_url or "").path
    run_async(serve(where, also, host=host, port=port, auth=auth, prefix=prefix))


async def serve(
    where: Database,
    also: tuple[str, ...] = (),
    *,
    host: str,
    port: int,
    auth: "Auth | None" = None,
    prefix: str = "",
) -> None:
    """Serve it until SIGINT or SIGTERM."""
    import uvicorn

    from openworkflow.web import dashboard as made

    async with _clients(where, also) as clients:
        config = uvicorn.Config(
            made(clients, auth=auth, prefix=prefix),
            log_level="warning",
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # who is who is for `auth` to say
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        with _listen(host, port) as listening:
            address, port = listening.getsockname()[:2]
            shown = f"[{address}]" if ":" in address else address
            say(f"dashboard: http://{shown}:{port}/")
            for number in (signal.SIGTERM, signal.SIGINT):
                # The server ends by them, and then raises them again: that ends nobody any more.
                signal.signal(number, lambda *_: None)
            await uvicorn.Server(config).serve([listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on port {port} of {host} ({os.strerror(error.errno or 0)}); choose "
            "another: --port"
        ) from None


@asynccontextmanager
async def _clients(
    where: Database, also: tuple[str, ...]
) -> AsyncIterator[Mapping[str, OpenWorkflow]]:
    async with AsyncExitStack() as stack:
        clients = {}
        for name in dict.fromkeys((where.namespace, *also)):
            place = Database(where.url, name, where.schema, where.listen_url)
            backend = await stack.enter_async_context(
                place.connect(migrate=False, application_name="openworkflow-dashboard")
            )
            clients[name] = client_of(backend)
        yield clients


def _openid(
    issuer: str, client: str | None, url: str | None, claim: str, given: tuple[str, ...]
) -> "Auth":
    try:
        from openworkflow.web.openid import OpenId
    except ImportError as error:
        raise extra_missing("--openid", "openid", error) from None
    secret = Settings.from_env().dashboard_openid_secret
    if client is None or url is None or secret is None:
        raise ConfigurationError(
            "--openid needs --openid-client, --openid-url, which is where people find the "
            f"dashboard, and {OPENID_SECRET}"
        )
    roles: dict[str, Any] = {}
    for each in given:
        value, _, role = each.rpartition("=")
        if not value:
            raise ConfigurationError("--openid-role is VALUE=ROLE, such as sre=admin or *=viewer")
        roles[value] = role
    return OpenId(
        issuer, client, secret, url=url, claim=claim, default=roles.pop("*", None), roles=roles
    )


def _auth(header: str | None, networks: tuple[str, ...], role: str) -> "Auth | None":
    from openworkflow.web import ProxyHeader, Tokens

    if header is not None:
        return ProxyHeader(header, networks, default=role)
    text = Settings.from_env().dashboard_tokens
    if text is None:
        return None
    roles: dict[str, Any] = {}
    for each in text.split(","):
        said, _, token = each.strip().rpartition(":")
        name, _, role = said.rpartition(":")
        if not role:
            raise ConfigurationError(f"{TOKENS} holds role:token or name:role:token, by commas")
        roles[token] = (name, role) if name else role
    return Tokens(roles)
