"""Who may do what on the dashboard: every route is walked, so that a new one is too."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from starlette.routing import Mount, Route

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.web import Caller, Role, Tokens, dashboard
from openworkflow.web.actions import ACTIONS, BULK
from openworkflow.web.auth import COOKIE
from tests.dashboard import ADMIN, OPERATOR, VIEWER, served

TOKENS = Tokens({VIEWER: "viewer", OPERATOR: "operator", ADMIN: ("ann", "admin")})
ROLES = {VIEWER: Role.VIEWER, OPERATOR: Role.OPERATOR, ADMIN: Role.ADMIN}
OPEN = {"/healthz", "/login"}
"""What is answered to everybody."""


@workflow
async def sleeping(step: Step) -> None:
    await step.sleep("long", "1h")


def routes(ow: OpenWorkflow) -> Iterator[tuple[str, str]]:
    """Each route of a dashboard, with its method."""
    app: Any = dashboard(ow, auth=TOKENS)
    for route in app.routes:
        if isinstance(route, Mount):
            assert "/static" == route.path
            continue
        assert isinstance(route, Route)
        path = route.path.replace("{namespace}", "default").replace("{run_id:uuid}", str(uuid4()))
        method = "GET" if "GET" in (route.methods or ()) else "POST"
        yield path.replace("{name}", "some"), method


async def test_no_route_answers_somebody_who_is_not_known(ow: OpenWorkflow) -> None:
    walked = 0
    async with served(ow, auth=TOKENS) as visitor:
        for path, method in routes(ow):
            if path in OPEN:
                continue
            if method == "GET":
                status, text = await visitor.get(path)
            else:
                status, _, text = await visitor.post(path)
            # Out of nothing there is nothing to log out of, nor a bulk action.
            assert status in ((401,) if method == "GET" else (401, 400, 303)), path
            assert "default" not in text.replace(path, "")
            walked += 1
    assert walked > 25


@pytest.mark.parametrize("token", ROLES)
async def test_each_action_asks_for_its_role(ow: OpenWorkflow, token: str) -> None:
    role = ROLES[token]
    async with served(ow, token, auth=TOKENS) as visitor:
        for action in ACTIONS:
            path = action.path.replace("{run_id:uuid}", str(uuid4())).replace("{name}", "some")
            status, _, text = await visitor.post(f"/n/default{path}")
            assert (status == 403) == (role < action.role), path
            if status == 403:
                assert f"you are {role.name.lower()} here" in text
        for name, least in BULK.items():
            status, _, _ = await visitor.post("/n/default/bulk", action=name, where="status:failed")
            assert (200 if role >= least else 403) == status


async def test_no_action_is_taken_from_another_site(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(sleeping)
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        for path, method in routes(ow):
            if method == "POST":
                status, _, _ = await visitor.post(path, site="cross-site")
                assert 403 == status, path
        await visitor.post(f"/n/default/runs/{run.id}/cancel", site="same-site")

    assert not (await run.status()).finished


async def test_actions_are_not_taken_by_a_get(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(sleeping)
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        for action in ACTIONS:
            path = action.path.replace("{run_id:uuid}", str(run.id)).replace("{name}", "some")
            assert (await visitor.get(f"/n/default{path}"))[0] in (404, 405)

    assert not (await run.status()).finished


async def test_a_viewer_is_shown_no_buttons_that_are_not_for_them(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(sleeping)
    for token, buttons in ((VIEWER, 0), (OPERATOR, 4), (ADMIN, 5)):
        async with served(ow, token, auth=TOKENS) as visitor:
            html = (await visitor.get(f"/n/default/runs/{run.id}"))[1]
            assert buttons == html.count(f'action="/n/default/runs/{run.id}/')


async def test_a_namespace_is_there_for_those_who_have_a_role_in_it(
    ow: OpenWorkflow, backend: BackendPostgres, database_url: str
) -> None:
    async def auth(request: Any) -> Caller:
        return Caller("bob", {"default": Role.VIEWER})

    other = await BackendPostgres.connect(database_url, namespace_id="other")
    async with other:
        clients = {"default": ow, "other": OpenWorkflow(other)}
        async with served(clients, auth=auth) as visitor:
            assert 200 == (await visitor.get("/n/default"))[0]
            refused = await visitor.get("/n/other")
            assert 404 == refused[0]
            assert refused == await visitor.get("/n/nowhere")
            assert "other" not in (await visitor.get("/n/default"))[1]


async def test_a_run_of_another_namespace_is_not_there(ow: OpenWorkflow, database_url: str) -> None:
    run = await ow.run_workflow(sleeping)
    async with (
        await BackendPostgres.connect(database_url, namespace_id="other") as other,
        served(OpenWorkflow(other), ADMIN, auth=TOKENS) as visitor,
    ):
        assert 404 == (await visitor.get(f"/n/other/runs/{run.id}"))[0]
        for name in ("cancel", "kill", "pause", "retry", "fork"):
            assert 404 == (await visitor.post(f"/n/other/runs/{run.id}/{name}"))[0]
        await visitor.post(f"/n/other/runs/{run.id}/signal", name="a", value="1")

    assert not (await run.status()).finished


async def test_a_token_is_typed_in_once_and_leads_back(ow: OpenWorkflow) -> None:
    async with served(ow, auth=TOKENS) as visitor:
        status, html = await visitor.get("/n/default/runs")
        assert 401 == status
        assert 'name="to" value="/n/default/runs"' in html

        status, _, html = await visitor.post("/login", token="wrong", to="/n/default/runs")
        assert (401, True) == (status, "not a token" in html)
        for to, leads in {
            "/n/default/runs": "/n/default/runs",
            "//evil.example": "/",
            "https://evil.example/": "/",
            "/\\evil.example": "/",
        }.items():
            status, location, _ = await visitor.post("/login", token=VIEWER, to=to)
            assert (303, leads) == (status, location)
        session = TOKENS.session_of(VIEWER)
        assert 200 == (await visitor.get("/n/default", Cookie=f"{COOKIE}={session}"))[0]


async def test_every_action_is_in_the_audit_log_and_what_was_sent_is_not(
    ow: OpenWorkflow, caplog: pytest.LogCaptureFixture
) -> None:
    run = await ow.run_workflow(sleeping)
    caplog.set_level(logging.INFO, "openworkflow.dashboard.audit")
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        page = f"/n/default/runs/{run.id}"
        await visitor.post(f"{page}/signal", name="approval", value='"a secret"')
        await visitor.post(f"{page}/retry")
        await visitor.post(f"{page}/cancel")
        await visitor.post("/n/default/bulk", action="retry", where="status:canceled", sure="yes")

    told = [json.loads(each.message) for each in caplog.records if "who" in each.message]
    assert [
        ("signal", "done"),
        ("retry", "InvalidRunState"),
        ("cancel", "done"),
        ("bulk retry", "done"),
    ] == [(each["what"], each["outcome"]) for each in told]
    assert {("ann", "admin", "default")} == {
        (each["who"], each["role"], each["namespace"]) for each in told
    }
    assert ("status:canceled", "1") == (told[-1]["where"], told[-1]["count"])
    assert str(run.id) == told[0]["run_id"]
    assert "secret" not in caplog.text


async def test_who_is_refused_is_in_the_audit_log(
    ow: OpenWorkflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "openworkflow.dashboard.audit")
    path = f"/n/default/runs/{uuid4()}/kill"
    async with served(ow, OPERATOR, auth=TOKENS) as visitor:
        await visitor.post(path)
        await visitor.post("/logout", site="cross-site")
        await visitor.post("/login", token="wrong-wrong-wrong")

    told = [json.loads(each.message) for each in caplog.records if "who" in each.message]
    assert [
        ("token 2", f"POST {path}", "that is for admins, and you are operator here"),
        ("token 2", "POST /logout", "this did not come from a page of the dashboard itself"),
        (None, "log in", "no token of this dashboard"),
    ] == [(each["who"], each["what"], each["why"].partition(";")[0]) for each in told]
    assert {("127.0.0.1", "refused")} == {(each["from"], each["outcome"]) for each in told}
    assert "wrong-wrong" not in caplog.text


@pytest.mark.parametrize(
    ("page", "to"),
    [
        ("/n/default/runs/x?before=y", "/n/default/runs/x?before=y"),
        ("/n/default/bulk", "/n/default/runs"),  # nobody comes back to what was sent
        ("//evil.example/a", "/"),
        ("", "/"),
    ],
)
async def test_whose_login_ended_while_they_filled_in_a_form_is_told_that_nothing_was_done(
    ow: OpenWorkflow, page: str, to: str
) -> None:
    async with served(ow, auth=TOKENS) as visitor:
        headers = {"Sec-Fetch-Site": "same-origin", "Referer": page and visitor.base + page}
        url = f"{visitor.base}/n/default/runs/{uuid4()}/fork"
        async with visitor._session.post(url, data={"input": "1"}, headers=headers) as answer:
            html = await answer.text()
            assert 401 == answer.status
            assert f'name="to" value="{to}"' in html
            assert "Nothing was done: you were not logged in any more." in html


async def test_what_cannot_be_done_is_said_on_the_page_it_was_asked_from(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow(sleeping)
    async with served(ow, ADMIN, auth=TOKENS) as visitor:
        page = f"/n/default/runs/{run.id}"
        for path, form, said in (
            (f"{page}/retry", {}, "is pending and cannot be retried"),
            (f"{page}/signal", {"name": "a", "value": "{"}, "the value is not JSON"),
            (f"{page}/fork", {"from_step": "none"}, "none"),
        ):
            status, to, note = await visitor.post(path, **form)
            assert (303, page) == (status, to)
            assert note.startswith("Nothing was done: ")
            assert said in note
        status, to, note = await visitor.post("/n/default/limits/nosuch/pause")
        assert (303, "/n/default/limits", True) == (status, to, "no limit 'nosuch'" in note)
        assert "/n/default/fleet" == (await visitor.post("/n/default/builds/nosuch/hold"))[1]
        assert "/n/default/schedules" == (await visitor.post("/n/default/schedules/x/pause"))[1]
