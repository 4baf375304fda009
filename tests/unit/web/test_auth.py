"""Who is let in."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from openworkflow.core.errors import ConfigurationError
from openworkflow.web import Caller, Loopback, ProxyHeader, Role, Tokens
from openworkflow.web.auth import COOKIE
from openworkflow.web.headers import check_same_site

TOKEN = "0123456789abcdef"


def asked(client: str | None = "127.0.0.1", **headers: str) -> Any:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    return HTTPConnection({**scope, "client": None if client is None else (client, 1)})


@pytest.mark.parametrize("host", ["localhost:8321", "127.0.0.1", "[::1]:8321", "[::1]"])
async def test_the_machine_itself_is_let_in_by_its_own_names(host: str) -> None:
    caller = await Loopback()(asked(host=host))

    assert caller is not None
    assert Role.ADMIN == caller.role_in("any")


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("10.0.0.3", {"host": "localhost"}),
        ("127.0.0.1", {"host": "evil.example:8321"}),  # whose name leads to 127.0.0.1
        ("127.0.0.1", {"host": "localhost", "x_forwarded_for": "10.0.0.3"}),
        ("127.0.0.1", {}),
        ("testclient", {"host": "localhost"}),
        (None, {"host": "localhost"}),
    ],
)
async def test_nobody_else_is_without_auth(client: str | None, headers: dict[str, str]) -> None:
    assert None is await Loopback()(asked(client, **headers))


async def test_a_token_has_its_role_as_a_bearer_and_as_the_cookie_that_stands_for_it() -> None:
    tokens = Tokens({TOKEN: ("ann", "operator"), "f" * 16: "viewer"})
    session = tokens.session_of(TOKEN)
    assert session is not None
    assert TOKEN not in session

    by_bearer = await tokens(asked(authorization=f"Bearer {TOKEN}"))
    by_cookie = await tokens(asked(cookie=f"{COOKIE}={session}"))

    assert by_bearer == by_cookie
    assert ("ann", Role.OPERATOR) == (by_bearer.name, by_bearer.role)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer 0123456789abcdeX"},
        {"authorization": "Basic 0123456789abcdef"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}=ä"},
    ],
)
async def test_nothing_but_a_token_is_one(headers: dict[str, str]) -> None:
    assert None is await Tokens({TOKEN: "admin"})(asked(**headers))


async def test_a_header_counts_only_from_the_proxies_that_are_trusted() -> None:
    auth = ProxyHeader("X-User", ["10.0.0.0/8"], {"ann": "admin"}, default="viewer")

    assert None is await auth(asked("11.0.0.1", x_user="ann"))
    assert None is not await auth(asked("::ffff:10.0.0.1", x_user="ann"))
    assert None is await auth(asked("10.0.0.1"))
    ann, bob = (
        await auth(asked("10.0.0.1", x_user="ann")),
        await auth(asked("10.1.1.1", x_user="b")),
    )
    assert (Role.ADMIN, Role.VIEWER) == (ann.role, bob.role)  # type: ignore[union-attr]


async def test_who_is_not_listed_is_nobody_unless_there_is_a_default() -> None:
    assert None is await ProxyHeader("X-User", ["10.0.0.0/8"], {"ann": "admin"})(
        asked("10.0.0.1", x_user="eve")
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda: Tokens({}),
        lambda: Tokens({"short": "viewer"}),
        lambda: Tokens({TOKEN: "root"}),
        lambda: ProxyHeader("X-User", []),
        lambda: ProxyHeader("X-User", ["10.0.0.300"]),
        lambda: Caller("ann", "root"),  # type: ignore[arg-type]
        lambda: Caller("ann", {"default": "root"}),  # type: ignore[dict-item]
    ],
)
def test_what_would_let_in_the_wrong_ones_is_refused(made: Any) -> None:
    with pytest.raises(ConfigurationError):
        made()


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "http://here", "host": "here"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"origin": "http://here:1", "host": "here:1"}, True),
        ({"origin": "http://there", "host": "here"}, False),
        ({"origin": "null", "host": "here"}, False),
        ({"host": "here"}, False),
        ({"origin": "http://[", "host": "here"}, False),
    ],
)
def test_only_pages_of_the_dashboard_itself_are_acted_on(
    headers: dict[str, str], is_own: bool
) -> None:
    request = Request(asked(**headers).scope)
    if is_own:
        check_same_site(request)
        return
    with pytest.raises(HTTPException):
        check_same_site(request)
