"""The dashboard says how a run differs from another."""

from __future__ import annotations

import json
from html import unescape
from typing import Any
from uuid import uuid4

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
