"""A run that exists if and only if your own transaction commits.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/transactional_enqueue.py

A new account and the run that welcomes its owner are one commit: no account without a welcome, no
welcome for an account that was rolled back, and no outbox table to make it so.
"""

import asyncio
import os

import asyncpg

from openworkflow import BackendPostgres, OpenWorkflow, RunHandle, Step, workflow


async def send_mail(address: str) -> str:
    return f"welcome, {address}"


@workflow
async def welcome(input: str, step: Step) -> str:
    return await step.run("send-mail", send_mail, input)


async def sign_up(ow: OpenWorkflow, connection: asyncpg.Connection, mail: str) -> RunHandle[str]:
    """Enqueue on your own connection; here even before the statement that may fail."""
    async with connection.transaction():
        run = await ow.run_workflow(welcome, mail, connection=connection)
        await connection.execute("INSERT INTO account (mail) VALUES ($1)", mail)
        return run


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"], namespace_id="sign-up")
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[welcome])
    await worker.start()
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute("CREATE TEMPORARY TABLE account (mail text PRIMARY KEY)")

    before = await backend.count_runs()
    run = await sign_up(ow, connection, "ada@example.com")
    print("committed, and the run returned:", await run.result(timeout="30s"))
    try:
        await sign_up(ow, connection, "ada@example.com")
    except asyncpg.UniqueViolationError:
        print("rolled back: the address is taken")
    after = await backend.count_runs()
    print("runs there are now more than before:", sum(after.values()) - sum(before.values()))

    await connection.close()
    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
