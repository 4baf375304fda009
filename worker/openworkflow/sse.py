"""The events of a run for a browser: server-sent events, as a response of Starlette or FastAPI.

    @app.get("/runs/{run_id}/events")
    async def events(run_id: UUID) -> EventStream:
        return EventStream(ow.handle(run_id), "tokens")

Needs the extra `web`.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response

from openworkflow.client.handle import RunHandle
from openworkflow.core.errors import BackendError, RunNotFound
from openworkflow.core.progress import RunEvent

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 15.0
"""Silence after which a comment keeps proxies from ending the connection."""
RETRY_MILLISECONDS = 2000
"""A browser that lost the connection opens another after so long."""
ENDED = "run.ended"
"""The last event, with the status of the run; a browser that does not close then comes again."""
_SILENCE = object()

logger = logging.getLogger(__name__)


class EventStream(Response):
    """The events of a run, of one topic or of all, until it ends or nobody reads them any more.

    Each has the topic as its name, its offset as its id and its value as JSON; the last is named
    "run.ended". A browser that comes back says what it had (Last-Event-ID), and goes on from
    there; another begins at `from_offset`. Answers 404 where there is no such run. May the reader
    see this run at all? That is for the caller to ask.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        run: RunHandle[Any],
        topic: str | None = None,
        *,
        from_offset: int = 0,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.status_code, self.background = 200, None
        self._run, self._topic, self._heartbeat = run, topic, heartbeat
        self._from_offset = from_offset
        run.events(topic, from_offset=from_offset)  # refuses what cannot be, before it is sent
        # A proxy such as nginx would gather what is to be seen at once.
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request; see ASGI."""
        try:
            await self._run.run()
        except RunNotFound as error:
            await PlainTextResponse(str(error), 404)(scope, receive, send)
            return
        sending = asyncio.create_task(self._send(scope, send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait({sending, gone})
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: "Scope", send: "Send") -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        offset = _offset_after(scope, self._from_offset)
        try:
            await _send_text(send, f"retry: {RETRY_MILLISECONDS}\n\n")
            events = self._run.events(self._topic, from_offset=offset)
            async with aclosing(_with_silences(events, self._heartbeat)) as told:
                async for event in told:
                    await _send_text(send, _text(event))
            data = json.dumps({"status": await self._run.status()})
            await _send_text(send, f"event: {ENDED}\ndata: {data}\n\n")
        except (BackendError, RunNotFound) as error:
            # Not the end of the run: the browser comes back, and says what it had.
            logger.warning("the events of run %s cannot be followed: %s", self._run.id, error)
        except OSError:
            return  # nobody reads any more
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _with_silences(
    events: AsyncIterator[RunEvent], seconds: float
) -> AsyncGenerator[RunEvent | object, None]:
    """The events, and a word whenever there was none for so long."""
    following: asyncio.Task[RunEvent] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=seconds)
            if not done:
                yield _SILENCE
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait({following})


async def _until_gone(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_text(send: "Send", text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def _text(event: object) -> str:
    if not isinstance(event, RunEvent):
        return ": still here\n\n"
    return f"id: {event.offset}\nevent: {event.topic}\ndata: {json.dumps(event.value)}\n\n"


def _offset_after(scope: "Scope", from_offset: int) -> int:
    """From where a browser wants to go on; what is no id of ours is none."""
    for name, value in scope["headers"]:
        if name == b"last-event-id" and value.isdigit() and len(value) < 10:
            return max(int(value) + 1, from_offset)
    return from_offset
