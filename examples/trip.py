"""A trip that is booked in parts, and given back where one of them cannot be had.

DATABASE_URL=postgresql://... python examples/trip.py
"""

import asyncio
import os

from openworkflow import (
    BackendPostgres,
    NonRetryableError,
    OpenWorkflow,
    ResultTimeout,
    Step,
    Undo,
    WorkflowCanceled,
    WorkflowFailed,
    workflow,
)


async def book(what: str) -> str:
    print(f"booked: {what}")
    return f"{what}-77"


async def free(booking: str) -> None:
    print(f"given back: {booking}")


async def free_by_key(key: str) -> None:
    """For a booking that was cut short: nobody knows whether it was made."""
    print(f"given back, if it was made: {key}")


async def fly(where: str) -> str:
    if where == "Atlantis":
        raise NonRetryableError("no flights to Atlantis")
    return await book(f"flight to {where}")


@workflow
async def trip(where: str, step: Step) -> str:
    undo = Undo(free, uncertain=free_by_key)
    await asyncio.gather(
        step.run("hotel", book, f"hotel in {where}", undo=undo),
        step.run("car", book, f"car in {where}", undo=undo),
    )
    flight = await step.run("flight", fly, where, undo=undo)
    await step.wait_for_signal("paid", timeout="1h")
    return flight


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[trip])
    await worker.start()

    try:
        await (await ow.run_workflow(trip, "Atlantis")).result()
    except WorkflowFailed as error:
        print(f"failed: {error.failure.message}")

    run = await ow.run_workflow(trip, "Rome")
    try:
        await run.result(timeout="3s")
    except ResultTimeout:
        await run.cancel()
    try:
        await run.result()
    except WorkflowCanceled:
        print("canceled, and nothing is left behind")

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
