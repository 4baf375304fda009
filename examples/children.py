"""A workflow that runs others: one that it waits for, many at once, and one that outlives it.

    DATABASE_URL=postgresql://... python examples/children.py

While it waits it is a row in PostgreSQL. Each child is a run of its own: look at them with

    openworkflow runs list --parent ID
"""

import asyncio
import os
from dataclasses import dataclass

from openworkflow import BackendPostgres, ChildFailed, OpenWorkflow, Step, workflow


@dataclass
class Order:
    customer: str
    parcels: list[str]


async def charge(customer: str) -> str:
    return f"receipt of {customer}"


@workflow
async def billing(customer: str, step: Step) -> str:
    return await step.run("charge", charge, customer)


@workflow
async def shipping(parcel: str, step: Step) -> str:
    if parcel == "piano":
        raise ValueError("too heavy")
    return f"label of {parcel}"


@workflow
async def survey(customer: str, step: Step) -> str:
    await step.sleep("a-moment", "1s")
    return f"{customer} was asked"


@workflow
async def order(order: Order, step: Step) -> list[str]:
    receipt = await step.run_workflow("bill", billing, order.customer)
    shipped = await step.map(
        "ship", shipping, order.parcels, concurrency=2, key=str, tolerate_failures=1
    )
    asked = await step.start_workflow("survey", survey, order.customer, parent_close="abandon")
    labels = [str(each) for each in shipped if not isinstance(each, ChildFailed)]
    return [receipt, *labels, str(asked.id)]


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[order, billing, shipping, survey])
    await worker.start()
    run = await ow.run_workflow(order, Order("ann", ["book", "piano", "lamp"]))

    receipt, *labels, asked = await run.result(timeout="30s")
    print(receipt)
    print(", ".join(labels))
    children = (await ow.list_runs(where=f"parent:{run.id}")).runs
    print(
        f"{len(children)} children, of which {sum(c.status == 'failed' for c in children)} failed"
    )
    (left,) = [child for child in children if str(child.id) == asked]
    print(await ow.handle(left.id, survey).result(timeout="30s"))

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
