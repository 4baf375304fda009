"""Weeks of nights in seconds: the warehouse is down, a worker dies, nobody can be told.

pip install pytest pytest-asyncio 'openworkflow-fleet[dev]'
pytest -o asyncio_mode=auto examples/test_nightly_report.py
"""

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest_asyncio
from nightly_report import Region, nightly_report, region_sales

from openworkflow.testing import Environment, Run

BERLIN = ZoneInfo("Europe/Berlin")


@pytest_asyncio.fixture
async def night(ow_env: Environment) -> Environment:
    """The evening before a night, with the schedule served."""
    await ow_env.skip_to(datetime(2030, 3, 4, 20, tzinfo=UTC))
    await ow_env.serve(nightly_report, region_sales)
    return ow_env


async def reports(env: Environment) -> list[Run[str]]:
    """The runs that have ended; the schedule always has one more, which is to come."""
    found = await env.runs(nightly_report)
    return [run for run in found if run.status not in ("pending", "running")]


async def test_a_week_has_seven_reports_at_two_in_berlin(night: Environment) -> None:
    await night.skip("7d")
    week = await reports(night)
    assert [run.output for run in week] == [f"2030-03-{day:02}: 418" for day in range(5, 12)]
    instants = [(await run.handle.run()).scheduled_for for run in week]
    assert {at.astimezone(BERLIN).hour for at in instants if at is not None} == {2}


async def test_a_warehouse_that_is_down_delays_its_region_only(night: Environment) -> None:
    night.fail("query", ConnectionError("the warehouse is down"), times=3)
    await night.skip("1d")
    (report,) = await reports(night)
    assert report.output == "2030-03-05: 418"
    assert len(night.calls("query")) == 7


async def test_a_region_without_figures_is_named(night: Environment) -> None:
    def query(region: Region) -> int:
        if region.name == "east":
            raise ConnectionError("the east is gone")
        return 100

    night.stub("query", query)
    await night.skip("1d")
    (report,) = await reports(night)
    assert report.output == "2030-03-05: 300, without east"


async def test_the_warehouse_is_asked_by_two_at_once(night: Environment) -> None:
    asking: list[str] = []
    both, most = asyncio.Barrier(2), 0

    async def query(region: Region) -> int:
        nonlocal most
        asking.append(region.name)
        most = max(most, len(asking))
        await both.wait()
        asking.remove(region.name)
        return 100

    night.stub("query", query)
    await night.skip("1d")
    assert most == 2


async def test_a_worker_that_dies_repeats_no_query(night: Environment) -> None:
    night.crash_after("query")
    await night.skip("1d")
    (report,) = await reports(night)
    assert report.output == "2030-03-05: 418"
    assert len(night.calls("query")) == 4


async def test_what_nobody_could_be_told_of_is_taken_back(night: Environment) -> None:
    night.fail("announce", ConnectionError("no mail"), times=3)
    await night.skip("1d")
    (report,) = await reports(night)
    assert report.status == "failed"
    assert [call.args for call in night.calls("undo:publish")] == [(report.step("publish").output,)]
