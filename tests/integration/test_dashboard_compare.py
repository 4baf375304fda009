"""The dashboard says how a run differs from another."""

from __future__ import annotations

import json
from html import unescape
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from openworkflow import BackendPostgres, NonRetryableError, OpenWorkflow, Step, workflow
from openworkflow.web.pages.compare import Side, difference, pairs
from tests.dashboard import served, words_of
from tests.helpers import StartWorker

GOOD, BAD = {"order": 1, "card": "4711-0000"}, {"order": 2, "card": "4711-0000"}


async def reserve(order: int) -> str:
    return "reserved"


async def charge(order: int) -> str:
    if order == 2:
        raise NonRetryableError(f"card of {order} was declined")
    return f"receipt of {order}"


@workflow
async def paying(given: dict[str, Any], step: Step) -> str:
    await step.run("reserve", reserve, given["order"])
    return await step.run("charge", charge, given["order"])


async def long(end: str) -> str:
    return "x" * 10_000 + end


@workflow
async def telling(given: str, step: Step) -> None:
    await step.run("tell", long, given)


async def test_a_run_that_failed_is_compared_with_the_last_that_succeeded(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(paying)
    good = await ow.run_workflow(paying, GOOD)
    bad = await ow.run_workflow(paying, BAD)
    for run in (good, bad):
        await ow.wait(run.id, 20)
    async with served(ow) as visitor:
        page = f"/n/default/runs/{bad.id}"
        assert f'href="{page}/compare"' in (await visitor.get(page))[1]
        html = (await visitor.get(f"{page}/compare"))[1]
        told = unescape(words_of(html))

        assert f"/runs/{good.id}" in html
        assert '- "order": 1' in told
        assert '+ "order": 2' in told
        assert "+ NonRetryableError: card of 2 was declined" in told
        assert '- "receipt of 1"' in told
        assert "reserve succeeded" in told
        assert "the same" in told

        same = await visitor.get(f"{page}/compare?with={bad.id}")
        assert (200, 3) == (same[0], same[1].count("The same."))


async def test_a_fork_is_compared_with_what_it_is_a_fork_of(ow: OpenWorkflow) -> None:
    run = await ow.run_workflow("w", GOOD)
    fork = await ow.fork(run.id, input=BAD)
    async with served(ow) as visitor:
        html = (await visitor.get(f"/n/default/runs/{fork.id}/compare"))[1]

    assert f'value="{run.id}"' in html
    assert '+ "order": 2' in unescape(words_of(html))


async def test_what_there_is_nothing_to_compare_with_is_told(
    ow: OpenWorkflow, database_url: str
) -> None:
    run = await ow.run_workflow("w", GOOD)
    async with await BackendPostgres.connect(database_url, namespace_id="other") as other:
        theirs = await OpenWorkflow(other).run_workflow("w", BAD)
    async with served(ow) as visitor:
        page = f"/n/default/runs/{run.id}/compare"
        for asked, words in (
            ("", "No other run of this workflow has succeeded"),
            ("?with=x", "x is no id of a run"),
            (f"?with={uuid4()}", "There is no such run here"),
            (f"?with={theirs.id}", "There is no such run here"),
        ):
            status, html = await visitor.get(f"{page}{asked}")
            assert (200, True) == (status, words in html)
        assert 404 == (await visitor.get(f"/n/default/runs/{uuid4()}/compare"))[0]


async def test_what_is_redacted_is_not_compared_in_sight(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    def redact(what: str, value: Any) -> Any:
        return json.loads(json.dumps(value).replace("4711", "****").replace("declined", "****"))

    await start_worker(paying)
    runs = [await ow.run_workflow(paying, given) for given in (GOOD, BAD)]
    for run in runs:
        await ow.wait(run.id, 20)
    async with served(ow, redact=redact) as visitor:
        html = (await visitor.get(f"/n/default/runs/{runs[1].id}/compare"))[1]

    assert "****" in html
    assert "4711" not in html
    assert "declined" not in html


async def test_what_differs_further_on_than_is_compared_is_not_called_the_same(
    ow: OpenWorkflow,
) -> None:
    lines = list(range(2000))
    for mine, others in (([*lines, 1], [*lines, 2]), ("x" * 30_000 + "a", "x" * 30_000 + "b")):
        runs = [await ow.run_workflow("w", each) for each in (mine, others, mine)]
        async with served(ow) as visitor:
            page = f"/n/default/runs/{runs[0].id}/compare?with="
            told = words_of((await visitor.get(f"{page}{runs[1].id}"))[1])
            same = words_of((await visitor.get(f"{page}{runs[2].id}"))[1])
        assert "Input They differ, but further on" in told
        assert "Input The same." in same


async def test_what_is_encoded_is_not_called_the_same(
    ow: OpenWorkflow, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    runs = []
    for data in ("AAAA", "BBBB", "AAAA"):
        runs.append(await ow.run_workflow("w", 1))
        envelope = json.dumps({"$ow": {"v": 1, "by": ["aes-gcm:1"], "data": data}})
        await sql.execute(
            "update workflow_runs set input = $2 where id = $1", runs[-1].id, envelope
        )
    async with served(ow) as visitor:
        page = f"/n/default/runs/{runs[0].id}/compare?with="
        told = [words_of((await visitor.get(f"{page}{each.id}"))[1]) for each in runs[1:]]

    assert "Input They are encoded" in told[0]
    assert "Input The same." in told[1]


async def test_a_result_is_the_same_as_far_as_it_is_read(
    ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(telling)
    runs = [await ow.run_workflow(telling, each) for each in ("a", "b")]
    for run in runs:
        await ow.wait(run.id, 20)
    async with served(ow) as visitor:
        page = f"/n/default/runs/{runs[0].id}/compare?with="
        html = (await visitor.get(f"{page}{runs[1].id}"))[1]
    assert "the same as far as it is read here" in words_of(html)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("a\nb", "a\nb", []),
        ("a\nb", "a\nc", [("…", ""), (" ", "a"), ("-", "b"), ("+", "c")]),
        ("", "+x", [("…", ""), ("-", ""), ("+", "+x")]),
    ],
)
def test_a_difference_is_lines_with_signs(before: str, after: str, found: list[Any]) -> None:
    assert found == difference(before, after)


def test_steps_are_paired_by_their_names_and_how_long_they_took_is_no_difference() -> None:
    def side(status: str = "succeeded", took: str = "1 s", result: str = "1") -> Side:
        return Side(status, took, 1, result)

    left = {"a": side(), "gone": side(), "b": side()}
    right = {"a": side(took="9 s"), "b": side("running"), "new": side()}

    found = pairs(left, right)
    assert ["a", "b", "new", "gone"] == [each.name for each in found]
    assert [False, True, True, True] == [each.differs for each in found]


def test_what_is_not_read_to_its_end_is_the_same_only_where_all_that_is_stored_is() -> None:
    def side(stored: str | None, is_whole: bool) -> Side:
        return Side("succeeded", "1 s", 1, "1", stored, is_whole)

    for stored, is_whole, is_sure in ((None, True, True), (None, False, False), ("x", False, True)):
        both = {"a": side(stored, is_whole)}
        (pair,) = pairs(both, both)
        assert (False, is_sure) == (pair.differs, pair.is_sure)
