"""The dashboard: what each page shows, and what is answered when something is wrong."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import openworkflow
from openworkflow import (
    BackendPostgres,
    Cron,
    Limit,
    NonRetryableError,
    OpenWorkflow,
    RunStatus,
    Step,
    workflow,
)
from openworkflow.core.filters import parse_filter
from openworkflow.web import Tokens, dashboard, live
from openworkflow.web.headers import POLICY
from tests.dashboard import served, words_of
from tests.helpers import StartWorker, eventually

PAGES = ["", "/runs", "/errors", "/schedules", "/limits", "/fleet"]
XSS = "<script>alert('xss')</script>\"'><img src=x onerror=alert(1)>"
SECRET = "4111-1111"


async def book(name: str) -> dict[str, str]:
    return {"booked": name}


async def decline(name: str) -> None:
    raise NonRetryableError(f"card of {name} declined")


@workflow
async def trip(name: str, step: Step) -> str:
    await step.run("book", book, name)
    await step.wait_for_signal("approval", timeout="1h")
    return f"away with {name}"


@workflow
async def failing(name: str, step: Step) -> None:
    await step.run("decline", decline, name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PERIOD", 0.05)
    monkeypatch.setattr(live, "SHARE", 0)


async def parked(ow: OpenWorkflow, run_id: UUID) -> None:
    async def waits() -> bool:
        told = await ow.explain(run_id)
        return told.status == RunStatus.PENDING and told.waits != ()

    await eventually(waits, 20)


async def test_every_page_of_an_empty_namespace_says_what_to_do(ow: OpenWorkflow) -> None:
    async with served(ow) as visitor:
        for page in PAGES:
            status, html = await visitor.get(f"/n/default{page}")
            assert 200 == status
            assert 'class="empty"' in html
        assert (303, "") == await visitor.get("/")


async def test_a_run_says_why_it_is_not_done_and_goes_on_by_a_click(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(trip)
    run = await ow.run_workflow(trip, "ann", tags={"customer": "acme"})
    await parked(ow, run.id)

    async with served(ow) as visitor:
        page = f"/n/default/runs/{run.id}"
        told = unescape(words_of((await visitor.get(page))[1]))
        assert "It waits for signal 'approval'" in told
        assert "book" in told
        assert "customer=acme" in told

        async with visitor.follow(f"{page}/live") as followed:
            assert "approval" in await anext(followed)
            status, to, note = await visitor.post(f"{page}/signal", name="approval", value="true")
            assert (303, page, "signal 'approval' is sent") == (status, to, note)
            assert "away with ann" in await followed.until("It succeeded")

        assert (
            "hx-sse:connect" not in (await visitor.get(page))[1]
        )  # what has ended is not followed


async def test_failed_runs_are_grouped_and_retried(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(failing)
    runs = await ow.run_workflows(failing, ["ann", "bob"])
    for run in runs:
        await ow.wait(run.id, 20)

    async with served(ow) as visitor:
        told = unescape(words_of((await visitor.get("/n/default/errors"))[1]))
        assert "2 NonRetryableError step 'decline' · failing in test_dashboard.py" in told

        where = "status:failed workflow:failing"
        _, _, asked = await visitor.post("/n/default/bulk", action="retry", where=where)
        assert "2 runs of status:failed workflow:failing are such that" in words_of(asked)
        assert RunStatus.FAILED == (await ow.get_workflow_run(runs[0].id)).status
        _, _, done = await visitor.post("/n/default/bulk", action="retry", where=where, sure="yes")
        assert "2 done, 0 left as they were" in words_of(done)

    for run in runs:
        assert 2 <= (await ow.wait(run.id, 20)).claim_no


async def test_a_filter_that_cannot_be_read_is_answered_in_its_place(ow: OpenWorkflow) -> None:
    async with served(ow) as visitor:
        status, html = await visitor.get("/n/default/runs?where=statu:failed")

    assert 200 == status
    assert "did you mean 'status'?" in html.replace("&#39;", "'")
    assert 'value="statu:failed"' in html


async def test_what_is_typed_into_the_filter_is_completed_from_what_there_is(
    ow: OpenWorkflow,
) -> None:
    await ow.run_workflow("order refund", tags={"customer": XSS}, version="7")

    async def offered(typed: str) -> list[str]:
        status, html = await visitor.get(f"/n/default/runs/options?where={quote(typed)}")
        assert 200 == status
        assert "<script" not in html
        return [unescape(each.split('"')[1]) for each in html.split("<option")[1:]]

    async with served(ow) as visitor:
        assert ['status:pending workflow:"order refund"'] == await offered(
            "status:pending workflow:o"
        )
        assert ["version:7"] == await offered("version:")
        assert ["tag.customer:"] == await offered("tag")
        assert [XSS] == [parse_filter(each)[0].values[0] for each in await offered("tag.customer:")]


async def test_the_fleet_is_shown_as_its_operator_told_of_it(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    condition = {"type": "ScalingLimited", "status": "True", "reason": "MaxReplicas"}
    condition |= {
        "message": "the runs need more workers than allowed",
        "since": "2026-11-01T12:00:00Z",
    }
    status = {"ready": 3, "desired": 4, "least": 0, "most": 4, "conditions": [condition]}
    tell = (
        "INSERT INTO workflow_fleets (namespace_id, resource, status)"
        " VALUES ('default', 'shop/orders', $1) ON CONFLICT (namespace_id)"
        " DO UPDATE SET status = $1, reported_at = now() - interval '1 h'"
    )
    async with served(ow) as visitor:
        nobody = words_of((await visitor.get("/n/default/fleet"))[1])
        await sql.execute(tell, json.dumps(status))
        told = words_of((await visitor.get("/n/default/fleet"))[1])
        later = []
        odds: list[Any] = [[], {"conditions": [1, {"since": 7}], "builds": {}, "ready": "x"}]
        for odd in odds:
            await sql.execute(tell, json.dumps(odd))
            code, html = await visitor.get("/n/default/fleet")
            assert 200 == code
            later.append(words_of(html))

    assert "No operator has told of these workers" in nobody
    sentence = "3 of 4 wanted workers are ready; 0 to 4 are allowed."
    assert f"{sentence} the runs need more workers than allowed." in told
    assert "MaxReplicas the runs need more workers than allowed 2026-11-01 12:00:00" in told
    assert "no operator has told anything since" not in told
    assert all("no operator has told anything since" in words for words in later)


async def test_pages_of_runs_lead_to_older_ones(ow: OpenWorkflow) -> None:
    await ow.run_workflows("listed", [None] * 60)
    async with served(ow) as visitor:
        first = (await visitor.get("/n/default/runs?where=workflow:listed"))[1]
        older = first.split("after=")[1].split('"')[0].replace("&amp;", "&")
        second = (await visitor.get(f"/n/default/runs?where=workflow:listed&after={older}"))[1]

    assert (50, 10) == (first.count("<tr id="), second.count("<tr id="))


async def test_what_is_gone_wrong_or_odd_is_answered_with_a_page(ow: OpenWorkflow) -> None:
    async with served(ow) as visitor:
        for path, status in {
            f"/n/default/runs/{uuid4()}": 404,
            "/n/default/runs/nonsense": 404,
            "/n/other": 404,
            "/n/default/runs?where=status:failed&after=nonsense": 200,
            f"/n/default/runs/{uuid4()}?before=nonsense": 404,
            "/nothing": 404,
        }.items():
            found, html = await visitor.get(path)
            assert (status, "OpenWorkflow") == (found, html and "OpenWorkflow"), path
            assert "Traceback" not in html


class Elements(HTMLParser):
    """What of a page a browser would take for more than text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.odd: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "script":
            self.scripts.append(found.get("src"))
        self.odd += [name for name in found if name.startswith("on") or name == "style"]
        if tag in ("img", "iframe", "object", "style", "b"):
            self.odd.append(tag)


async def test_what_users_wrote_is_text_on_every_page(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    """In names, tags, inputs, results, errors, keys, reasons; whatever a run can hold."""

    async def odd(value: str) -> str:
        return value

    async def raises(value: str) -> None:
        raise NonRetryableError(value)

    @workflow(name=XSS, version=XSS[:30], limits=[Limit(3, name=XSS)], schedule=Cron("0 0 1 1 *"))
    async def hostile(input: str | None, step: Step) -> str:
        step.set_status(XSS)
        await step.run(XSS, odd, XSS)
        await step.sleep(f"{XSS}2", "1ms")
        if input is not None:
            await step.run("raises", raises, XSS)
        return XSS

    await start_worker(hostile)
    runs = [
        await ow.run_workflow(hostile, input, tags={"x": XSS}, idempotency_key=f"{XSS}{input}")
        for input in (None, XSS)
    ]
    for run in runs:
        await ow.wait(run.id, 20)
    await ow.pause(workflow=hostile, reason=XSS, by=XSS)
    await ow.schedules.pause(XSS, XSS)
    waits = await ow.run_workflow(hostile)

    async with served(ow) as visitor:
        looked = [*PAGES, f"/runs?where={XSS}", "/runs?where=status:failed"]
        looked += [f"/runs/{run.id}" for run in (*runs, waits)]
        looked += [f"/runs/{runs[1].id}/compare", f"/runs/{waits.id}/compare?with={XSS}"]
        for page in looked:
            status, html = await visitor.get(f"/n/default{page}")
            elements = Elements()
            elements.feed(html)
            assert 200 == status, page
            assert ["/static/theme.js"] == elements.scripts[:1]
            assert 5 == len(elements.scripts), page
            assert [] == elements.odd, page
        assert POLICY == (await visitor.headers("/n/default"))["content-security-policy"]
    assert "unsafe" not in POLICY


async def test_what_is_redacted_is_seen_nowhere(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    async def pay(card: str) -> str:
        return card

    async def refuse(card: str) -> None:
        raise NonRetryableError(f"no: {card}")

    @workflow
    async def paying(card: str, step: Step) -> str:
        step.set_status(card)
        await step.run("pay", pay, card)
        if card.endswith("x"):
            await step.run("refuse", refuse, card)
        return card

    def redact(what: str, value: Any) -> Any:
        return json.loads(json.dumps(value).replace(SECRET, "****"))

    await start_worker(paying)
    runs = await ow.run_workflows(paying, [SECRET, f"{SECRET}x"])
    for run in runs:
        await ow.wait(run.id, 20)

    async with served(ow, redact=redact) as visitor:
        for page in [*PAGES, *(f"/runs/{run.id}" for run in runs)]:
            html = (await visitor.get(f"/n/default{page}"))[1]
            assert SECRET not in html, page
        assert "****" in (await visitor.get(f"/n/default/runs/{runs[0].id}"))[1]


async def test_while_the_database_is_away_the_page_stays_and_recovers(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    async with served(ow) as visitor, visitor.follow("/n/default/live") as followed:
        assert "Overview" in await anext(followed)

        await sql.execute("alter table workflow_runs rename to gone")
        told = await followed.until("What is shown is of")
        assert "<h1>" not in told
        status, html = await visitor.get("/n/default/runs")
        assert 503 == status
        assert "hx-sse:connect" in html

        await sql.execute("alter table gone rename to workflow_runs")
        assert "<h1>Overview</h1>" in await followed.until("<h1>")


async def test_many_viewers_cost_the_database_what_one_does(
    ow: OpenWorkflow, backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    recent = type(backend.board).recent

    async def counted(self: Any) -> Any:
        nonlocal asked
        asked += 1
        return await recent(self)

    monkeypatch.setattr(type(backend.board), "recent", counted)
    monkeypatch.setattr(live, "PERIOD", 3600)
    async with served(ow) as visitor, AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(visitor.follow("/n/default/live")) for _ in range(20)
        ]
        assert 20 == len(await asyncio.gather(*(anext(each) for each in opened)))

    assert 1 == asked


async def test_it_can_be_mounted_in_an_application_of_yours(ow: OpenWorkflow) -> None:
    mounted = dashboard(ow, auth=Tokens({"0123456789abcdef": "viewer"}))
    app = Starlette(routes=[Mount("/ops/workflows", mounted)])

    async with served(ow, "0123456789abcdef", app=app) as visitor:
        status, html = await visitor.get("/ops/workflows/n/default/runs")
        assert 200 == status
        assert 'href="/ops/workflows/static/style.css"' in html
        assert 'href="/ops/workflows/n/default/errors"' in html
        assert 200 == (await visitor.get("/ops/workflows/static/style.css"))[0]
        async with visitor.follow("/ops/workflows/n/default/runs/live") as followed:
            assert "/ops/workflows/n/default/runs" in await anext(followed)


def test_it_is_a_name_of_the_package() -> None:
    assert dashboard is openworkflow.dashboard
    assert not hasattr(openworkflow, "dashbord")
