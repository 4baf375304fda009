"""A web service: an order and its run in one transaction, and a page that follows it.

    pip install 'openworkflow-fleet[web]' fastapi uvicorn 'sqlalchemy[asyncio]'
    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    uvicorn fastapi_orders:app
    curl -X POST 'localhost:8000/orders?item=lamp'
    curl -N localhost:8000/runs/THE-ID/events

The lifespan of the application opens and stops the client. Here the worker lives there too,
so that one process is all there is; in production it is a fleet of its own:
`openworkflow worker fastapi_orders`.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from openworkflow import BackendPostgres, OpenWorkflow, RunNotFound, Step, workflow
from openworkflow.sse import EventStream


async def charge(item: str) -> str:
    return f"receipt for a {item}"


@workflow
async def fulfil(item: str, step: Step) -> str:
    step.emit("order", "accepted")
    receipt = await step.run("charge", charge, item)
    step.emit("order", receipt)
    return receipt


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ["DATABASE_URL"]
    engine = create_async_engine(re.sub(r"^postgres(ql)?:", "postgresql+asyncpg:", url))
    async with AsyncExitStack() as last_first:
        last_first.push_async_callback(engine.dispose)
        backend = await last_first.enter_async_context(await BackendPostgres.connect(url))
        app.state.engine, app.state.ow = engine, OpenWorkflow(backend)
        await last_first.enter_async_context(app.state.ow.new_worker(workflows=[fulfil]))
        async with engine.begin() as connection:
            await connection.execute(
                text("create table if not exists orders (item text primary key, run uuid)")
            )
        yield


app = FastAPI(lifespan=lifespan)


def client(request: Request) -> OpenWorkflow:
    ow: OpenWorkflow = request.app.state.ow
    return ow


async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    """Committed before the answer is sent, and rolled back where the request fails."""
    async with AsyncSession(request.app.state.engine) as session, session.begin():
        yield session


Client = Annotated[OpenWorkflow, Depends(client)]
Session = Annotated[AsyncSession, Depends(transaction, scope="function")]


@app.post("/orders", status_code=202)
async def order(item: str, ow: Client, session: Session) -> dict[str, UUID]:
    run = await ow.run_workflow(fulfil, item, connection=session)
    found = await session.execute(
        text("insert into orders values (:item, :run) on conflict do nothing"),
        {"item": item, "run": run.id},
    )
    if not found.rowcount:  # type: ignore[attr-defined]
        raise HTTPException(409, "there is such an order, and no second run of it")
    return {"run": run.id}


@app.get("/runs/{run_id}")
async def status(run_id: UUID, ow: Client) -> dict[str, object]:
    try:
        run = await ow.get_workflow_run(run_id)
    except RunNotFound as error:
        raise HTTPException(404, str(error)) from None
    return {"status": run.status, "output": run.output}


@app.get("/runs/{run_id}/events")
async def events(run_id: UUID, ow: Client) -> EventStream:
    return EventStream(ow.handle(run_id))
