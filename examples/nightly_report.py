"""A report for every night: a run for each region, two at once, and nothing half-published.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    openworkflow worker examples/nightly_report.py      # runs it every night at two, in Berlin
    openworkflow schedules trigger nightly-report       # or now
    pytest -o asyncio_mode=auto examples/test_nightly_report.py

- **Children.** Each region is a run of its own, with its own retries, on any worker. One that fails
  for good is named in the report; half of them are needed.
- **Limit.** The warehouse bears two queries at once, whatever asks: `openworkflow limits set
  warehouse 5` changes that without a deploy. A region that waits to try again holds no slot.
- **Saga.** What was published is taken back if the report cannot be announced, or is canceled.
- **Time.** `step.scheduled_for` is the night that is meant, however late the run begins.

A report is asked for twice where a crash leaves that open, so both writes name it by their key.
"""

from dataclasses import dataclass
from datetime import date

from openworkflow import Cron, Limit, RetryPolicy, Step, current_step, workflow

REGIONS = ["north", "east", "south", "west"]
PATIENT = RetryPolicy(max_attempts=5, initial="1m", max_delay="1h")
BRIEF = RetryPolicy(max_attempts=3, initial="10s")


@dataclass(frozen=True)
class Region:
    name: str
    day: date


@dataclass(frozen=True)
class Sales:
    region: str
    total: int


@workflow(limits=[Limit(2, name="warehouse")])
async def region_sales(region: Region, step: Step) -> Sales:
    """The figures of one region; the warehouse is asked again for some hours if it is down."""
    return Sales(region.name, await step.run("query", query_warehouse, region, retry=PATIENT))


@workflow(
    schedule=Cron("0 2 * * *", tz="Europe/Berlin", overlap="skip", catch_up="12h"), deadline="20h"
)
async def nightly_report(step: Step) -> str:
    assert step.scheduled_for is not None
    day = step.scheduled_for.date()
    found = await step.map(
        "region",
        region_sales,
        [Region(name, day) for name in REGIONS],
        key=lambda region: region.name,
        min_successful=len(REGIONS) // 2,
    )
    sales = [each for each in found if isinstance(each, Sales)]
    missing = sorted({*REGIONS} - {each.region for each in sales})
    text = f"{day}: {sum(each.total for each in sales)}"
    if missing:
        text += f", without {', '.join(missing)}"
    address = await step.run("publish", publish, text, retry=BRIEF, undo=withdraw)
    await step.run("announce", announce, address, retry=BRIEF)
    return text


async def query_warehouse(region: Region) -> int:
    """Here would be your query, of minutes."""
    return 100 + len(region.name)


async def publish(text: str) -> str:
    """Here would be your object store: the key makes a second write the same object."""
    return f"https://reports.example/{current_step().key}"


async def withdraw(address: str) -> None:
    """Delete what was published; that it is gone already is no error."""


async def announce(address: str) -> None:
    """Here would be your mail or chat, which gets `current_step().key` too."""
