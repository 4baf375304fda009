"""The dashboard and what is large: a page stays of a size that is sent each second."""

from __future__ import annotations

from html import unescape
from uuid import UUID

import asyncpg

from openworkflow import OpenWorkflow, RunStatus
from tests.dashboard import served

LARGEST = 500_000
"""Characters of a page."""
_STEPS = """
insert into step_attempts (id, workflow_run_id, step_name, kind, status, created_at, completed_at)
select gen_random_uuid(), $1, 'step ' || n, 'run', 'succeeded',
       now() - interval '1 d' + n * interval '1 min',
       now() - interval '1 d' + n * interval '1 min' + interval '10 ms'
  from generate_series(1, 200) n
"""


async def test_a_run_that_waited_between_all_of_its_steps_is_a_page_of_half_a_megabyte(
    ow: OpenWorkflow, sql: asyncpg.Connection
) -> None:
    """Each of 200 lines had each of 199 folds: it was five."""
    run = await ow.run_workflow("w")
    await sql.execute(_STEPS, run.id)
    async with served(ow) as visitor:
        html = (await visitor.get(f"/n/default/runs/{run.id}"))[1]

    assert (199, 200) == (html.count("in which nothing was executed"), html.count('href="#folds"'))
    assert len(html) < LARGEST


async def test_an_input_that_is_too_long_to_be_read_is_not_put_into_a_form_and_is_forked(
    ow: OpenWorkflow,
) -> None:
    run = await ow.run_workflow("w", ["x"] * 100_000)
    small = await ow.run_workflow("w", ["x"])
    async with served(ow) as visitor:
        page = f"/n/default/runs/{run.id}"
        html = (await visitor.get(page))[1]
        assert "too long to be changed here" in html
        assert len(html) < LARGEST
        told = (await visitor.get(f"/n/default/runs/{small.id}"))[1]
        assert '<textarea name="input" rows="5" placeholder="As it is">[' in unescape(told)
        status, to, _ = await visitor.post(f"{page}/fork", was="", input="")
        assert 303 == status

    forked = await ow.get_workflow_run(UUID(to.rpartition("/")[2]))
    assert ["x"] * 100_000 == forked.input


async def test_a_run_that_failed_is_followed_since_somebody_else_may_retry_it(
    ow: OpenWorkflow, sql: asyncpg.Connection
) -> None:
    run = await ow.run_workflow("w")
    await ow.cancel(run.id)
    async with served(ow) as visitor:
        page = f"/n/default/runs/{run.id}"
        html = (await visitor.get(page))[1]
        assert f'hx-sse:connect="{page}/live?"' in html
        assert f"<title>w …{str(run.id)[-4:]} · default · OpenWorkflow</title>" in html
        async with visitor.follow(f"{page}/live") as followed:
            await followed.until("/retry")
            await ow.retry(run.id)
            await followed.until("/cancel")

    assert RunStatus.PENDING == (await ow.get_workflow_run(run.id)).status
