"""The overview of the dashboard: what it counts, and where that leads."""

from __future__ import annotations

from html import unescape
from typing import Any

import asyncpg

from openworkflow import OpenWorkflow
from tests.dashboard import served, words_of


async def test_a_number_of_the_overview_leads_to_so_many_runs(
    ow: OpenWorkflow, sql: asyncpg.Connection[Any]
) -> None:
    """ "3 lost" led to all that were running, and "2 held back", which were limited, to none."""
    store = (
        "INSERT INTO workflow_runs (id, namespace_id, workflow_name, status, worker_id, paused,"
        " pause, limits, available_at, due_at, created_at) SELECT gen_random_uuid(), 'default', $1,"
        " $2, $3, $4, $5, $6, $7::text::timestamptz, $8::text::timestamptz, now()"
        " FROM generate_series(1, $9)"
    )
    old, later = "2020-01-01", "infinity"
    by_hand = '{"at": "2026-11-01T00:00:00Z", "by": null, "reason": null}'
    await ow.pause(workflow="closed", reason="the books are closed")
    await ow.limits.set("l", 0)
    rows: list[tuple[Any, ...]] = [
        ("a", "pending", None, False, None, None, old, None, 2),  # due
        ("a", "running", "w", False, None, None, later, None, 3),  # running
        ("a", "pending", None, False, None, None, later, None, 4),  # waiting
        ("a", "pending", None, True, by_hand, None, later, None, 5),  # paused
        ("closed", "pending", None, True, None, ["l"], later, old, 1),
        ("a", "pending", None, True, None, ["l"], later, old, 7),  # limited
        ("a", "pending", None, True, None, ["l"], later, later, 9),  # waiting
        ("a", "running", "w", False, None, None, old, None, 8),  # lost
    ]
    for values in rows:
        await sql.execute(store, *values)

    async with served(ow) as visitor:
        html = (await visitor.get("/n/default"))[1]
        tiles = html.split('<ul class="tiles">')[1].split("</ul>")[0].split("<a href=")[1:]
        told = {}
        for tile in tiles:
            words = words_of(tile.partition(">")[2]).split(" ")
            page = (await visitor.get(unescape(tile.split('"')[1])))[1]
            told[words[1]] = (int(words[0]), page.count('<tr id="r-'))
    assert {
        "due": (2, 2),
        "running": (3, 3),
        "waiting": (13, 13),
        "paused": (6, 6),
        "limited": (7, 7),
        "lost": (8, 8),
    } == told
