"""The dashboard and what is odd: names that are no part of a path, and what no page of it sends."""

from __future__ import annotations

import json
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from openworkflow import BackendPostgres, Cron, OpenWorkflow, Step, workflow
from openworkflow.backend.filtering import Filtering
from openworkflow.core.errors import ConnectionLost, Fault
from openworkflow.web import Caller, Role, Tokens, dashboard
from openworkflow.web.auth import COOKIE
from openworkflow.web.openid import OpenId
from openworkflow.web.prefix import _OWN
from tests.dashboard import ADMIN, VIEWER, served

TOKENS = Tokens({VIEWER: "viewer", ADMIN: ("ann", "admin")})
ODD = ["a/b", "..", ".", "x/../plain", "%2F", "a?b#c", "two\nlines", "é", "plain"]


@workflow
async def sleeping(step: Step) -> None:
    await step.sleep("long", "1h")


def paths(html: str, end: str) -> list[str]:
    """The paths of a page that end so, in the attributes that have them."""
    return [unescape(each) for each in html.split('"') if each.endswith(end)]


async def test_what_is_done_is_done_to_what_has_this_name_whatever_it_is(
    ow: OpenWorkflow,
) -> None:
    """A browser asks for /schedules/plain/pause where it is to ask for /schedules/x/../plain/…."""
    names = [name for name in ODD if name.isprintable()]  # others have no schedule
    for name in names:
        await ow.schedules.create(name, sleeping, Cron("0 0 1 1 *"))
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        found = paths((await visitor.get("/n/default/schedules"))[1], "/pause")
        for name, path in zip(sorted(names), found, strict=True):
            assert (303, f"schedule {name!r} is paused") == (await visitor.post(path))[::2]
            assert {name} == {each.name for each in await ow.schedules.list() if each.paused_at}
            await ow.schedules.resume(name)


@pytest.mark.parametrize("name", ODD)
async def test_a_namespace_is_shown_whatever_its_name_is(
    backend: BackendPostgres, database_url: str, name: str
) -> None:
    async with await BackendPostgres.connect(database_url, namespace_id=name) as own:
        ow = OpenWorkflow(own)
        run = await ow.run_workflow(sleeping)
        clients = {name: ow, "default": OpenWorkflow(backend)}
        async with served(clients, ADMIN, auth=TOKENS) as visitor:
            html = (await visitor.get("/"))[1]
            home = unescape(html.split('<li><a href="')[1].split('"')[0])
            (runs,) = paths((await visitor.get(home))[1], "/runs")
            assert f"{runs}/{run.id}" in (await visitor.get(runs))[1]
            assert (303, "it is paused") == (await visitor.post(f"{runs}/{run.id}/pause"))[::2]


def cursor(at: str, run_id: UUID) -> str:
    return urlsafe_b64encode(f"{at} {run_id}".encode()).decode().rstrip("=")


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
async def test_a_page_after_a_moment_that_is_none_is_refused_and_no_fault_of_the_database(
    ow: OpenWorkflow, at: str
) -> None:
    forged = cursor(at, uuid4())
    run = await ow.run_workflow(sleeping)
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        for path in (f"runs?after={forged}", f"runs?where=status:failed&after={forged}"):
            status, html = await visitor.get(f"/n/default/{path}")
            assert (200, True) == (status, "is no cursor" in html)
        assert 400 == (await visitor.get(f"/n/default/runs/{run.id}?before={forged}"))[0]


async def test_a_form_is_no_longer_than_is_read_though_it_comes_in_pieces(
    ow: OpenWorkflow,
) -> None:
    """Before anybody is asked who it is: a login is for those who are not known."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"to=/&token="
        for _ in range(20):
            yield b"a" * 100_000

    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    async with (
        served(ow, auth=TOKENS) as visitor,
        visitor._session.post(f"{visitor.base}/login", data=pieces(), headers=headers) as answer,
    ):
        assert 413 == answer.status


async def test_a_number_that_no_page_sends_is_no_defect(ow: OpenWorkflow) -> None:
    form = {"action": "retry", "where": "status:failed", "sure": "yes", "done": "9" * 5000}
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        assert 200 == (await visitor.post("/n/default/bulk", **form))[0]


async def test_a_value_that_cannot_be_stored_is_told_of_on_the_page_of_the_run(
    ow: OpenWorkflow,
) -> None:
    run = await ow.run_workflow(sleeping)
    page = f"/n/default/runs/{run.id}"
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        for value in ("NaN", '"\\ud800"', '"\\u0000"'):
            status, to, note = await visitor.post(f"{page}/signal", name="a", value=value)
            assert (303, page) == (status, to)
            assert note.startswith("Nothing was done: ")


async def test_a_note_is_no_longer_than_what_a_browser_keeps(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(sleeping)
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        page = f"/n/default/runs/{run.id}"
        _, _, note = await visitor.post(f"{page}/fork", from_step="歩" * 400)

    assert note.startswith("Nothing was done: no step '歩歩歩")
    assert len(note.encode()) * 3 < 4096


async def test_what_a_bulk_action_had_done_before_it_failed_is_told_and_in_the_audit_log(
    ow: OpenWorkflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openworkflow.client.bulk.CHUNK", 2)
    for _ in range(3):
        await ow.run_workflow(sleeping)
    chunk, asked = Filtering.chunk, 0

    async def lost(*given: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ConnectionLost("the connection was lost")
        return await chunk(*given, **options)

    monkeypatch.setattr(Filtering, "chunk", lost)
    caplog.set_level(logging.INFO, "openworkflow.dashboard.audit")
    form = {"action": "pause", "where": "status:pending", "sure": "yes"}
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        status, _, html = await visitor.post("/n/default/bulk", **form)
    assert 503 == status
    assert "At least 2 done, 0 left as they were." in html
    assert "the connection was lost" in html
    assert "Go on" in html

    (told,) = [json.loads(each.message) for each in caplog.records if "who" in each.message]
    assert ("bulk pause", "ConnectionLost", "2") == (told["what"], told["outcome"], told["count"])


async def test_an_action_that_may_have_been_done_says_so_on_the_page_that_will_show_it(
    ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ow.run_workflow(sleeping)
    page = f"/n/default/runs/{run.id}"
    said = []
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        for in_doubt in (True, False):

            async def lost(*_: Any, doubt: bool = in_doubt, **__: Any) -> None:
                raise ConnectionLost("it was lost").of(Fault.SERVER, in_doubt=doubt)

            monkeypatch.setattr(ow, "pause", lost)
            status, to, note = await visitor.post(f"{page}/pause")
            assert (303, page) == (status, to)
            said.append(note)

    assert [
        "Whether it was done is not known: it was lost",
        "Nothing was done: it was lost",
    ] == said


async def test_a_login_over_https_is_kept_for_https_though_a_proxy_ends_it(
    ow: OpenWorkflow,
) -> None:
    async with served(ow, auth=TOKENS) as visitor:
        for origin, is_secure in (("https://ops.example.com", True), ("http://here", False)):
            headers = {"Sec-Fetch-Site": "same-origin", "Origin": origin}
            url, form = f"{visitor.base}/login", {"token": VIEWER}
            async with visitor._session.post(
                url, data=form, headers=headers, allow_redirects=False
            ) as answer:
                assert is_secure == ("secure" in answer.headers["set-cookie"].lower())


async def test_auth_of_somebody_else_may_be_plain_and_name_roles_and_is_told_what_it_is_not(
    ow: OpenWorkflow,
) -> None:
    def plain(request: Any) -> Caller:
        return Caller("bob", "viewer")  # type: ignore[arg-type]

    async def wrong(request: Any) -> Any:
        return "bob"

    assert Role.VIEWER == plain(None).role
    async with served(ow, auth=plain) as visitor:  # type: ignore[arg-type]
        assert 200 == (await visitor.get("/n/default"))[0]
    async with served(ow, auth=wrong) as visitor:
        status, html = await visitor.get("/n/default")
        assert (400, True) == (status, "auth= gives a Caller, or None, and not str" in html)


@pytest.mark.parametrize("prefix", ["/ops/workflows", "/n", "/static"])
@pytest.mark.parametrize("is_taken_off", [True, False])
async def test_under_a_prefix_it_answers_whether_a_proxy_takes_that_off_or_not(
    ow: OpenWorkflow, prefix: str, is_taken_off: bool
) -> None:
    path = "" if is_taken_off else prefix
    async with served(ow, auth=TOKENS, prefix=f"{prefix}/") as visitor:
        status, html = await visitor.get(f"{path}/n/default/runs?where=status:failed")
        assert (401, True) == (status, f'action="{prefix}/login"' in html)
        assert f'value="{prefix}/n/default/runs?where=status:failed"' in html
        session = TOKENS.session_of(VIEWER)
        html = (await visitor.get(f"{path}/n/default/runs", Cookie=f"{COOKIE}={session}"))[1]
        links = re.findall(r'(?:href|src|action|connect)="(/[^"]*)"', html)
        assert {f"{prefix}/"} == {link[: len(prefix) + 1] for link in links}
        assert 200 == (await visitor.get(f"{path}/static/style.css"))[0]


def test_every_path_of_the_dashboard_is_known_for_one_of_its_own(ow: OpenWorkflow) -> None:
    """By that it is known how much of a prefix was taken off."""
    auth = OpenId("https://id", "c", "s", url="https://ops", default="viewer")
    app: Any = dashboard(ow, auth=auth)
    for route in app.routes:
        assert _OWN.match(f"{route.path}/style.css" if "static" in route.path else route.path)


async def test_in_an_application_that_says_its_own_prefix_it_is_where_that_has_it(
    ow: OpenWorkflow,
) -> None:
    around = FastAPI()
    around.mount("/workflows", dashboard(ow))

    async def told(scope: Any, receive: Any, send: Any) -> None:  # as servers tell it
        await around({**scope, "root_path": "/api"}, receive, send)

    async with served(ow, app=told) as visitor:
        for path in ("/workflows", "/api/workflows"):  # of a proxy that takes it off, and another
            status, html = await visitor.get(f"{path}/n/default")
            assert (200, True) == (status, 'href="/api/workflows/n/default/runs"' in html)


async def test_what_is_no_url_leads_to_the_overview(ow: OpenWorkflow) -> None:
    async with served(ow, auth=TOKENS) as visitor:
        status, to, _ = await visitor.post("/login", token=ADMIN, to="//[")
        assert (303, "/") == (status, to)
        url = f"{visitor.base}/n/default/runs/{UUID(int=0)}/retry"
        headers = {"Sec-Fetch-Site": "same-origin", "Referer": "http://["}
        async with visitor._session.post(url, headers=headers) as answer:
            assert (401, True) == (answer.status, 'name="to" value="/"' in await answer.text())


@pytest.mark.parametrize("is_in_place", [True, False])
async def test_what_is_hidden_of_an_input_is_not_put_into_a_form_to_be_the_input_of_a_fork(
    ow: OpenWorkflow, is_in_place: bool
) -> None:
    def redact(what: str, value: Any) -> Any:
        if what != "input" or "card" not in value:
            return value
        hidden = value if is_in_place else dict(value)
        hidden["card"] = "****"
        return hidden

    for given, note in (
        ({"n": 1, "card": "4711"}, "not all of it may be seen"),
        ({"n": 1}, "n&#34"),
    ):
        run = await ow.run_workflow("w", given)
        async with served(ow, redact=redact) as visitor:
            html = (await visitor.get(f"/n/default/runs/{run.id}"))[1]
        (field,) = re.findall(r'<textarea name="input".*?</textarea>', html, re.DOTALL)
        assert note in field
        assert "****" not in field


async def test_a_filter_that_takes_too_long_is_told_of_in_its_place_and_not_as_a_database_away(
    ow: OpenWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tried, most = await ow.run_workflow(sleeping), 0, 3
    brief = Filtering.brief

    async def slow(*given: Any) -> Any:
        nonlocal tried
        tried += 1
        if tried > most:
            return await brief(*given)
        raise ConnectionLost("canceling statement due to statement timeout").of(Fault.SIZE)

    monkeypatch.setattr(Filtering, "brief", slow)
    async with served(ow) as visitor:
        status, html = await visitor.get("/n/default/runs?where=status:canceled")
        assert (200, True, False) == (status, "takes too long" in html, "No run is" in html)
        tried = 0
        status, html = await visitor.get(f"/n/default/runs/{run.id}/compare")
        assert (200, True) == (status, "It takes too long" in html)
        tried, most = 0, 1
        status, html = await visitor.get("/n/default/runs?where=status:canceled")
        assert (200, True) == (status, "None of these is like that; older ones may be." in html)


async def test_who_leaves_while_a_form_is_sent_is_no_defect(ow: OpenWorkflow) -> None:
    """It raised, so that a server had a traceback for each."""
    sent = []

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"sec-fetch-site", b"same-origin"),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/login", "root_path": ""}
    scope |= {"scheme": "http", "headers": headers, "query_string": b"", "client": None}
    await dashboard(ow, auth=TOKENS)(scope, gone, send)
    assert 400 == sent[0]["status"]
