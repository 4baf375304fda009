"""Calls of a vendor at a rate that all runs share; and who is urgent goes first.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/rates.py

A step that waits for its turn holds no worker. A priority is a head start of so many hours.
"""

import asyncio
import os

from openworkflow import BackendPostgres, OpenWorkflow, Rate, Step, step, workflow

order: list[str] = []


@step(rate=Rate(20, per="1s", name="mail"))
async def send(receiver: str) -> None:
    order.append(receiver)


@workflow
async def welcome(receiver: str) -> None:
    await send(receiver)


@workflow
async def announce(receivers: list[str], step: Step) -> None:
    await step.map("send", send, receivers, rate="mail")


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"], namespace_id="mail")
    ow = OpenWorkflow(backend)
    runs = await ow.run_workflows(welcome, [f"reader-{number}" for number in range(9)])
    runs.append(await ow.run_workflow(welcome, "urgent", priority=3))
    worker = ow.new_worker(workflows=[welcome, announce], concurrency=1)
    await worker.start()
    for run in runs:
        await run.result(timeout="60s")
    print("before the last:", "urgent" in order[:-1])

    await (await ow.run_workflow(announce, ["dora", "emil"])).result(timeout="60s")
    print("sent:", len(order))
    (limit,) = await ow.limits.list()
    print(f"limit {limit.name!r}: {limit.rate} in {limit.rate_seconds:g} s")

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
