"""A run that waits for a person: it costs a row until somebody decides, or for three days.

    DATABASE_URL=postgresql://... python examples/approval.py

The approval is sent in the transaction that records it, so that there is never one without the
other. Any program may send it, in SQL too:

    select openworkflow_signal('<run id>', 'approval', '{"by": "ann", "granted": true}');
"""

import asyncio
import os
from dataclasses import dataclass

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, Step, current_step, workflow


@dataclass
class Approval:
    by: str
    granted: bool


async def ask(order: int) -> None:
    """Ask for it: the key lets a mail service drop what a crash made us send twice."""
    print(f"mail: order {order} waits for your approval [Idempotency-Key: …/{current_step().name}]")


async def ship(order: int) -> str:
    return f"order {order} is on its way"


@workflow
async def approved_order(order: int, step: Step) -> str:
    await step.run("ask", ask, order)
    approval = await step.wait_for_signal(
        "approval", timeout="3d", type=Approval, default=Approval("nobody", False)
    )
    if not approval.granted:
        return f"order {order} was refused by {approval.by}"
    return await step.run("ship", ship, order)


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[approved_order])
    await worker.start()
    ann, bob = await ow.run_workflows(approved_order, [1, 2])

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    async with connection.transaction():
        # ... your own tables ...
        await ann.signal("approval", Approval("ann", True), connection=connection)
    await connection.close()
    await bob.signal("approval", Approval("bob", False), idempotency_key="decision-2")
    await bob.signal("approval", Approval("bob", False), idempotency_key="decision-2")

    print(await ann.result())
    print(await bob.result())
    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
