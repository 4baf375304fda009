"""No more than two runs of a customer at once, and customers take turns.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/limits.py

What waits for a slot is not due. Whoever ends a run lets the next one go, in the same transaction.
"""

import asyncio
import os
from collections import Counter

from openworkflow import BackendPostgres, Limit, OpenWorkflow, Step, workflow

now: Counter[str] = Counter()
most: Counter[str] = Counter()


async def call_customer(customer: str) -> None:
    now[customer] += 1
    most[customer] = max(most[customer], now[customer])
    await asyncio.sleep(0.02)
    now[customer] -= 1


@workflow(limits=[Limit(2, key=lambda customer: customer)])
async def remind(customer: str, step: Step) -> None:
    await step.run("call", call_customer, customer)


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"], namespace_id="reminders")
    ow = OpenWorkflow(backend)
    runs = await ow.run_workflows(remind, ["acme"] * 20 + ["globex"] * 4)
    last = await ow.explain(runs[19].id)
    print(last.sentence)

    worker = ow.new_worker(workflows=[remind])
    await worker.start()
    for run in runs:
        await run.result(timeout="60s")
    print("at once at most:", dict(sorted(most.items())))

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
