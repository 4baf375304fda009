"""People log in to the dashboard by a real OpenID provider, and no other way."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from openworkflow import OpenWorkflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.web import Role
from openworkflow.web.auth import COOKIE
from openworkflow.web.openid import OpenId
from tests.dashboard import served
from tests.helpers import eventually

HOME = "http://ops.example.com/board"
SECRET = "a-secret-of-the-client"
PAGE = "/n/default/runs"


@pytest.fixture
async def provider(unused_port: int) -> AsyncIterator[str]:
    """The issuer's URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oidc_provider_mock", "--port", str(unused_port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    issuer = f"http://127.0.0.1:{unused_port}"

    async def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{issuer}/.well-known/jwks.json")).status_code < 500
        return False

    try:
        await eventually(answers)
        yield issuer
    finally:
        process.terminate()
        await process.wait()


def openid(issuer: str, **options: Any) -> OpenId:
    given = {"url": HOME, "roles": {"sre": "admin", "ann@example.com": "operator"}, **options}
    return OpenId(issuer, "openworkflow", SECRET, **given)


class Browser:
    """Somebody before a browser, who keeps cookies, and whom the provider knows."""

    def __init__(self, base: str, http: httpx.AsyncClient) -> None:
        self._base, self._http = base, http

    async def get(self, path: str, accept: str = "text/html") -> httpx.Response:
        return await self._http.get(self._base + path, headers={"accept": accept})

    async def log_in(self, issuer: str, subject: str, **claims: Any) -> httpx.Response:
        """The answer of the dashboard when the provider has sent them back."""
        await self._http.put(f"{issuer}/users/{subject}", json=claims)
        away = await self.get(PAGE)
        assert 303 == away.status_code, away.text
        sent = await self._http.post(away.headers["location"], data={"sub": subject})
        return await self.come_back(sent.headers["location"])

    async def come_back(self, location: str) -> httpx.Response:
        assert location.startswith(HOME + "/openid?"), location
        return await self.get(location.removeprefix(HOME))


@contextlib.asynccontextmanager
async def browsing(ow: OpenWorkflow, auth: OpenId) -> AsyncIterator[Browser]:
    async with served(ow, auth=auth) as visitor, httpx.AsyncClient() as http:
        yield Browser(visitor.base, http)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"groups": ["staff", "sre"]}, "u1"),
        ({"groups": "sre", "preferred_username": "ann"}, "ann (u1)"),
        ({"email": "ann@example.com", "email_verified": True}, "ann@example.com"),
    ],
)
async def test_whom_the_provider_and_the_roles_name_gets_in(
    ow: OpenWorkflow, provider: str, claims: dict[str, Any], name: str
) -> None:
    async with browsing(ow, openid(provider)) as browser:
        back = await browser.log_in(provider, "u1", **claims)
        assert (303, PAGE) == (back.status_code, back.headers["location"])
        cookie = back.headers["set-cookie"]
        assert all(word in cookie.lower() for word in (COOKIE, "httponly", "samesite=lax"))

        page = await browser.get(PAGE)
        assert 200 == page.status_code
        assert name in page.text


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": ["staff"]},
        {"email": "ann@example.com", "email_verified": False},
        {"email": "ann@example.com"},
        {"preferred_username": "ann@example.com"},
        {"preferred_username": "sre", "groups": {"sre": True}},
    ],
)
async def test_others_are_told_so_and_not_sent_round_in_circles(
    ow: OpenWorkflow, provider: str, claims: dict[str, Any]
) -> None:
    async with browsing(ow, openid(provider)) as browser:
        back = await browser.log_in(provider, "u2", **claims)

        assert 403 == back.status_code
        assert "no role is for them" in back.text
        assert COOKIE not in back.headers.get("set-cookie", "")
        assert 303 == (await browser.get(PAGE)).status_code


async def test_a_login_that_somebody_else_began_is_refused(ow: OpenWorkflow, provider: str) -> None:
    """Or a page of theirs could have a victim look at a dashboard as them."""
    auth = openid(provider)
    async with browsing(ow, auth) as attacker, browsing(ow, auth) as victim:
        away = await attacker.get(PAGE)
        sent = await attacker._http.post(away.headers["location"], data={"sub": "u3"})
        without = await victim.come_back(sent.headers["location"])
        await victim.get(PAGE)  # begins one of their own
        other = await victim.come_back(sent.headers["location"])

        assert [400, 400] == [without.status_code, other.status_code]
        assert "begun elsewhere" in other.text


async def test_cookies_are_worth_nothing_when_changed_old_or_of_another_use(
    ow: OpenWorkflow, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with browsing(ow, openid(provider, hours=1)) as browser:
        await browser.log_in(provider, "u4", groups=["sre"])
        cookies = browser._http.cookies
        session = cookies[COOKIE]
        for other in ("", session[:-4] + "AAAA", session.replace(".", "", 1), "null", "é"):
            cookies.delete(COOKIE)
            cookies.set(COOKIE, other.encode("ascii", "ignore").decode())
            assert 303 == (await browser.get(PAGE)).status_code, other
        login = cookies["openworkflow_openid"]
        cookies.delete(COOKIE)
        cookies.set(COOKIE, login)
        assert 303 == (await browser.get(PAGE)).status_code
        cookies.delete(COOKIE)
        cookies.set(COOKIE, session)
        assert 200 == (await browser.get(PAGE)).status_code
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3700)
        assert 303 == (await browser.get(PAGE)).status_code


async def test_a_role_that_is_taken_away_is_gone_at_once(ow: OpenWorkflow, provider: str) -> None:
    async with browsing(ow, openid(provider)) as browser:
        await browser.log_in(provider, "u5", groups=["sre"])
        session = browser._http.cookies[COOKIE]

    async with browsing(ow, openid(provider, roles={"others": "viewer"})) as browser:
        browser._http.cookies.set(COOKIE, session)
        assert 303 == (await browser.get(PAGE)).status_code


async def test_everybody_whom_the_provider_knows_may_be_let_in(
    ow: OpenWorkflow, provider: str
) -> None:
    async with browsing(ow, openid(provider, roles=None, default=Role.VIEWER)) as browser:
        assert 303 == (await browser.log_in(provider, "u6")).status_code
        assert 200 == (await browser.get(PAGE)).status_code


async def test_what_is_no_page_is_refused_and_a_logout_lasts(
    ow: OpenWorkflow, provider: str
) -> None:
    async with browsing(ow, openid(provider)) as browser:
        assert 401 == (await browser.get(PAGE + "/live", "text/event-stream")).status_code
        await browser.log_in(provider, "u7", groups=["sre"])
        out = await browser._http.post(
            browser._base + "/logout", headers={"sec-fetch-site": "same-origin"}
        )

        assert 200 == out.status_code
        assert "logged out" in out.text
        assert COOKIE not in browser._http.cookies


async def test_a_provider_that_refuses_or_is_away_is_told_without_its_secrets(
    ow: OpenWorkflow, provider: str, unused_port: int
) -> None:
    async with browsing(ow, openid(provider)) as browser:
        away = await browser.get(PAGE)
        state = parse_qs(urlsplit(away.headers["location"]).query)["state"][0]
        denied = await browser.get(f"/openid?error=access_denied&state={state}")
        wrong = await browser.get(f"/openid?code=nothing&state={state}")
    async with browsing(ow, openid(provider + "/nowhere")) as browser:
        gone = await browser.get(PAGE)

    assert (403, True) == (denied.status_code, "access_denied" in denied.text)
    assert (502, True) == (wrong.status_code, "refuses" in wrong.text)
    assert 502 == gone.status_code
    assert not any(SECRET in each.text for each in (denied, wrong, gone))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"roles": None}, "nobody gets in"),
        ({"roles": {"a": "king"}}, "there is no role 'king'"),
        ({"url": "ops.example.com"}, "url is a URL"),
    ],
)
def test_what_could_let_nobody_in_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        openid("https://id.example.com", **options)
    with pytest.raises(ConfigurationError, match="issuer is a URL"):
        openid("id.example.com")


async def test_whose_login_ended_while_they_filled_in_a_form_is_told_so_when_they_are_back(
    ow: OpenWorkflow, provider: str
) -> None:
    """The provider lets them in at once: it looked as if what they had sent had been done."""
    async with browsing(ow, openid(provider)) as browser:
        headers = {
            "accept": "text/html",
            "sec-fetch-site": "same-origin",
            "referer": f"{HOME.removesuffix('/board')}{PAGE}",
        }
        url = f"{browser._base}{PAGE}/00000000-0000-0000-0000-000000000000/retry"
        away = await browser._http.post(url, headers=headers)
        assert 303 == away.status_code
        await browser._http.put(f"{provider}/users/u1", json={"groups": "sre"})
        sent = await browser._http.post(away.headers["location"], data={"sub": "u1"})
        back = await browser.come_back(sent.headers["location"])
        assert PAGE == back.headers["location"]
        assert "Nothing was done: you were not logged in" in (await browser.get(PAGE)).text
