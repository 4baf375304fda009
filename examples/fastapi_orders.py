"""A web service: an order and its run in one transaction, and a page that shows how far it is.

    pip install 'openworkflow-fleet[web]' fastapi uvicorn 'sqlalchemy[asyncio]'
    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    uvicorn fastapi_orders:app
    curl -X POST 'localhost:8000/orders?item=lamp'
    curl -N localhost:8000/runs/THE-ID/events      # or localhost:8000/runs/THE-ID/page

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
from fastapi.responses import HTMLResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from openworkflow import BackendPostgres, OpenWorkflow, RunNotFound, Step, workflow
from openworkflow.sse import EventStream


async def charge(item: str) -> str:
    return f"receipt for a {item}"


async def pack(item: str) -> str:
    return f"a box with a {item}"


async def send(box: str) -> str:
    return f"{box}, on its way"


@workflow
async def fulfil(item: str, step: Step) -> str:
    """What it emits is told once, whatever crashes: a browser sees no step twice."""
    step.emit("progress", {"done": 0, "of": 3, "last": "accepted"})
    receipt = await step.run("charge", charge, item)
    step.emit("progress", {"done": 1, "of": 3, "last": receipt})
    box = await step.run("pack", pack, item)
    step.emit("progress", {"done": 2, "of": 3, "last": box})
    sent = await step.run("send", send, box)
    step.emit("progress", {"done": 3, "of": 3, "last": sent})
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
    """Who may see this run is for your code to ask here."""
    return EventStream(ow.handle(run_id))


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Order</title>
<p><progress></progress> <output>waiting</output></p>
<script>
  const source = new EventSource("events");
  source.addEventListener("progress", (event) => {
    const { done, of, last } = JSON.parse(event.data);
    Object.assign(document.querySelector("progress"), { value: done, max: of });
    document.querySelector("output").value = last;
  });
  source.addEventListener("run.ended", () => source.close());
</script>
"""


@app.get("/runs/{run_id}/page", response_class=HTMLResponse)
async def page(run_id: UUID) -> str:
    """A browser that loses the connection comes back by itself, and goes on where it was."""
    return PAGE
