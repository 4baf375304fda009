"""The dashboard retries the failed runs that it shows in a line, and no others."""

from __future__ import annotations

import json
import re
from html import unescape

import asyncpg
import pytest

from openworkflow import OpenWorkflow
from openworkflow.web.pages import failures
from tests.dashboard import served, words_of

KINDS = {
    "in step a": {"type": "shop:Declined", "message": "x", "traceback": "in step a, attempt 1"},
    "in step b": {"type": "shop:Declined", "message": "x", "traceback": "in step b, attempt 1"},
    "retired": {"type": "BuildRetired", "message": "y"},
    "of another program": {"name": "TypeError", "message": "z"},
}


async def failed(
    ow: OpenWorkflow, sql: asyncpg.Connection[asyncpg.Record], counts: dict[str, int]
) -> None:
    for kind, count in counts.items():
        for run in await ow.run_workflows("w", [kind] * count):
            await sql.execute(
                "update workflow_runs set status = 'failed', completed_at = now(), error = $2 "
                "where id = $1",
                run.id,
                json.dumps(KINDS[kind]),
            )


async def test_these_are_those_of_the_line(
    ow: OpenWorkflow, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    """It meant all of a type and a workflow; and none where the type had no module."""
    counts = {"in step a": 5, "in step b": 4, "retired": 3, "of another program": 2}
    await failed(ow, sql, counts)
    async with served(ow) as visitor:
        html = (await visitor.get("/n/default/errors"))[1]
        found = [unescape(each) for each in re.findall(r'name="where" value="([^"]*)"', html)]
        told = []
        for where in found:
            form = {"action": "retry", "where": where}
            page = words_of((await visitor.post("/n/default/bulk", **form))[2])
            told.append(int(page.split("Retry runs ")[1].split()[0]))
    assert list(counts.values()) == told


async def test_of_many_that_failed_like_others_the_newest_are_named(
    ow: OpenWorkflow,
    sql: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures, "MOST_NAMED", 2)
    await failed(ow, sql, {"in step a": 3, "in step b": 2})
    async with served(ow) as visitor:
        html = words_of((await visitor.get("/n/default/errors"))[1])
    assert 1 == html.count("Retry 2…")
    assert 1 == html.count("Retry these…")
