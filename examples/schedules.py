"""A workflow that runs again and again, declared where it is written.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/schedules.py

The worker stores the schedule. From then on there is one run that waits for the next instant;
whatever process claims it lets it begin, and puts the next in its place.
"""

import asyncio
import os
from datetime import UTC, datetime

from openworkflow import BackendPostgres, Cron, OpenWorkflow, Step, workflow


async def add_up(day: str) -> str:
    return f"the figures of {day}"


@workflow(schedule=Cron("0 6 * * 1-5", tz="Europe/Berlin", catch_up="4h", jitter="5m"))
async def daily_report(step: Step) -> str:
    assert step.scheduled_for is not None
    return await step.run("add-up", add_up, step.scheduled_for.date().isoformat())


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"], namespace_id="reports")
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[daily_report])
    await worker.start()
    while not await ow.schedules.list():  # noqa: ASYNC110  the worker writes it beside its work
        await asyncio.sleep(0.05)

    (schedule,) = await ow.schedules.list()
    print(schedule.name, "runs", schedule.words)

    run = await ow.schedules.trigger("daily-report")
    print("run by hand:", await run.result(timeout="30s"))

    week = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 7, tzinfo=UTC)
    print("runs for the first week of March:", await ow.schedules.backfill("daily-report", *week))
    print("and again:", await ow.schedules.backfill("daily-report", *week))

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
