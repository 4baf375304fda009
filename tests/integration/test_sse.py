"""Server-sent events of a run, by a real server over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from openworkflow import OpenWorkflow, RunHandle, Step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.client import streams
from openworkflow.core.errors import ConfigurationError
from openworkflow.sse import EventStream
from tests.helpers import StartWorker, eventually

GO: dict[str, asyncio.Event] = {}


async def gate() -> None:
    await GO["on"].wait()


@workflow
async def counts(step: Step) -> None:
    step.emit("count", 0)
    step.emit("other", "beside")
    await step.run("gate", gate)
    step.emit("count", {"text": "two\nlines"})


@pytest.fixture(autouse=True)
def go() -> None:
    GO["on"] = asyncio.Event()


class Browser:
    """One request, and the lines of its answer."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def get(self, path: str, last_event_id: str | None = None) -> tuple[int, dict[str, str]]:
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._reader = reader
        lines = [f"GET {path} HTTP/1.1", "Host: here", "Accept: text/event-stream"]
        lines += [] if last_event_id is None else [f"Last-Event-ID: {last_event_id}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        status = int((await reader.readline()).split()[1])
        headers: dict[str, str] = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers

    async def message(self) -> dict[str, str]:
        """The next message; a comment is one named ""."""
        chunk = b""
        while not chunk.endswith(b"\n\n"):
            size = int((await self._reader.readline()).strip(), 16)
            if not size:
                raise EOFError
            chunk += await self._reader.readexactly(size)
            await self._reader.readline()
        lines = chunk.decode().strip().split("\n")
        return dict(line.partition(": ")[::2] for line in lines)

    async def messages(self) -> list[dict[str, str]]:
        found = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(await self.message())
        return found

    async def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def serving(ow: OpenWorkflow, port: int, **options: Any) -> AsyncIterator[Browser]:
    async def events(request: Request) -> EventStream:
        run: RunHandle[Any] = ow.handle(UUID(request.path_params["run"]))
        return EventStream(run, request.query_params.get("topic"), **options)

    app = Starlette(routes=[Route("/{run}", events)])
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    browser = Browser(port)
    try:
        yield browser
    finally:
        server.should_exit = True
        await task


async def test_events_reach_a_browser_as_they_come_and_the_last_says_how_the_run_ended(
    ow: OpenWorkflow, start_worker: StartWorker, unused_port: int
) -> None:
    await start_worker(counts)
    run = await ow.run_workflow(counts)
    async with asyncio.timeout(40), serving(ow, unused_port) as browser:
        status, headers = await browser.get(f"/{run.id}?topic=count")
        assert 200 == status
        assert headers["content-type"].startswith("text/event-stream")
        assert "no-store" == headers["cache-control"]
        assert {"retry": "2000"} == await browser.message()
        assert {"id": "0", "event": "count", "data": "0"} == await browser.message()
        GO["on"].set()

        told, end = await browser.messages()
        assert ("2", "count") == (told["id"], told["event"])
        assert {"text": "two\nlines"} == json.loads(told["data"])
        assert {"event": "run.ended", "data": '{"status": "succeeded"}'} == end
        await browser.close()


async def test_a_browser_that_comes_back_goes_on_after_what_it_had(
    ow: OpenWorkflow, start_worker: StartWorker, unused_port: int
) -> None:
    await start_worker(counts)
    GO["on"].set()
    run = await ow.run_workflow(counts)
    await run.result(timeout=20)
    async with asyncio.timeout(40), serving(ow, unused_port) as browser:
        for last, wanted in [
            ("0", ["1", "2"]),
            ("2", []),
            ("99", []),
            ("no number", ["0", "1", "2"]),
            ("-1", ["0", "1", "2"]),
            ("9" * 40, ["0", "1", "2"]),
        ]:
            await browser.get(f"/{run.id}", last)
            retry, *told, end = await browser.messages()
            assert ("2000", "run.ended") == (retry["retry"], end["event"])
            assert wanted == [each["id"] for each in told], last
            await browser.close()


async def test_silence_is_told_and_a_browser_that_leaves_is_not_followed(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker, unused_port: int
) -> None:
    await start_worker(counts)
    run = await ow.run_workflow(counts)
    async with asyncio.timeout(40), serving(ow, unused_port, heartbeat=0.1) as browser:
        await browser.get(f"/{run.id}?topic=other")
        while (await browser.message()).get("event") != "other":
            pass
        assert {"": "still here"} == await browser.message()
        assert {"": "still here"} == await browser.message()
        followers = streams.streams_of(backend)._followers
        assert run.id in followers
        await browser.close()

        await eventually(lambda: not followers)
    await run.cancel()


async def test_a_run_that_there_is_not_is_not_found(
    ow: OpenWorkflow, backend: BackendPostgres, unused_port: int
) -> None:
    async with asyncio.timeout(40), serving(ow, unused_port) as browser:
        status, _ = await browser.get(f"/{uuid4()}")
        assert 404 == status
        await browser.close()
    with pytest.raises(ConfigurationError):
        EventStream(ow.handle(uuid4()), "")
