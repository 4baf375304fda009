"""The dashboard's page."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

import openworkflow
from openworkflow import OpenWorkflow
from openworkflow.web import Role
from tests.dashboard import served
from tests.docs.blocks import Page

DASHBOARD = Page("docs/dashboard.md")


async def test_it_is_mounted_with_the_users_of_the_application(ow: OpenWorkflow) -> None:
    app = Starlette()
    names = await DASHBOARD.block("async def signed_in").run(
        app=app, ow=ow, openworkflow=openworkflow
    )
    caller = await names["signed_in"](HTTPConnection({"type": "http", "session": {"user": "ann"}}))

    assert ("ann", Role.OPERATOR) == (caller.name, caller.role)
    assert None is await names["signed_in"](HTTPConnection({"type": "http", "session": {}}))
    assert ["/workflows"] == [route.path for route in app.routes]  # type: ignore[attr-defined]


async def test_values_can_be_hidden(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow("pay", {"card": "4111"})
    names: dict[str, Any] = await DASHBOARD.block("def redact").run(
        ow=ow, openworkflow=openworkflow
    )

    async with served(ow, app=names["board"]) as visitor:
        status, html = await visitor.get(f"/n/default/runs/{run.id}")
        assert 200 == status
        assert "4111" not in html
        assert "(hidden)" in html
