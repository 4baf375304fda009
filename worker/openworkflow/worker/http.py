"""`/metrics`, `/livez` and `/readyz` on one port, from a thread of its own.

A probe must be answered while user code blocks the event loop, hence the thread. It has an event
loop of its own, so that a hundred clients that send nothing cost no more threads and are let go.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from errno import EADDRINUSE
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from openworkflow.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

Probe = Callable[[], tuple[bool, str]]
"""Gives its answer and the reason. Called in the server's thread: it must not block."""

DEFAULT_PORT = 9090
CLIENT_SECONDS = 10.0
"""A client has this long to ask, and again to take the answer."""
LONGEST_REQUEST = 16_384
"""Bytes of a request's head; the answer to a longer one is 431."""
MOST_CLIENTS = 64
"""At once; one more, and the one that has been there for longest is let go. A scrape or a probe is
answered in milliseconds, and files that idle clients hold are missing elsewhere."""
STOP_SECONDS = 5.0
BACKLOG = 128


class HealthServer:
    """Serves a registry and two probes, on all addresses (IPv4 and IPv6) unless `host` is given.

    With `elsewhere` it takes any free port where another program has this one.
    """

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        *,
        live: Probe,
        ready: Probe,
        host: str = "",
        elsewhere: bool = False,
    ) -> None:
        self._elsewhere = elsewhere
        self._host, self._port, self._registry = host, port, registry
        self._probes = {"/livez": live, "/readyz": ready}
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._stopping = asyncio.Event()
        self._conversations: dict[asyncio.Task[None], None] = {}
        """Oldest first."""
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen, and return the port (a free one if 0 was asked for).

        Raises ConfigurationError when the port cannot be had.
        """
        try:
            listening = self._listen()
        except OSError as error:
            raise ConfigurationError(self._refused(error)) from None
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="openworkflow http", daemon=True
        )
        self._thread.start()
        port: int = listening.getsockname()[1]
        return port

    def stop(self) -> None:
        """Stop listening; requests in progress are dropped. May be called again."""
        if self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)

    def _listen(self) -> socket.socket:
        try:
            return _listen(self._host, self._port)
        except OSError as error:
            if not self._elsewhere or error.errno != EADDRINUSE:
                raise
        listening = _listen(self._host, 0)
        logger.warning(
            "port %d is taken, by another worker here perhaps: metrics and health are on port %d; "
            "OPENWORKFLOW_PORT or --port chooses one",
            self._port,
            listening.getsockname()[1],
        )
        return listening

    def _refused(self, error: OSError) -> str:
        advice = "stop what uses the port, or set" if error.errno == EADDRINUSE else "set"
        return (
            f"cannot listen on {self._host or '*'}:{self._port} for metrics and health "
            f"({error.strerror}); {advice} OPENWORKFLOW_PORT to another port, or to 0 for any"
        )

    def _run(self, listening: socket.socket) -> None:
        with self._runner as runner:
            runner.run(self._serve(listening))

    async def _serve(self, listening: socket.socket) -> None:
        # Not asyncio.start_server: when closed it forgets, open, what it accepted that moment.
        self._loop.add_reader(listening, self._accept, listening)
        await self._stopping.wait()
        self._loop.remove_reader(listening)
        listening.close()

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of files: without a pause this would be a busy loop
            logger.warning("the health port could not take a client: %s", error)
            self._loop.remove_reader(listening)
            self._loop.call_later(1.0, self._loop.add_reader, listening, self._accept, listening)
            return
        client.setblocking(False)
        if len(self._conversations) >= MOST_CLIENTS:
            oldest = next(iter(self._conversations))
            del self._conversations[oldest]
            oldest.cancel()
        conversation = self._loop.create_task(self._converse(client))
        self._conversations[conversation] = None
        conversation.add_done_callback(lambda done: self._conversations.pop(done, None))
        # Not in the task: one that is canceled before it began runs no `finally`.
        conversation.add_done_callback(lambda _: client.close())

    async def _converse(self, client: socket.socket) -> None:
        """One request, one answer: connections are not kept, a scrape comes every few seconds."""
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                head = await self._read_head(client)
            response = self._response(head).encode()
            async with asyncio.timeout(CLIENT_SECONDS):
                await self._loop.sock_sendall(client, response)
        except (TimeoutError, OSError, EOFError) as error:
            logger.debug("a client of the health port was let go: %r", error)

    async def _read_head(self, client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= LONGEST_REQUEST:
            chunk = await self._loop.sock_recv(client, 4096)
            if not chunk:
                raise EOFError
            head += chunk
        return head

    def _response(self, head: bytes) -> "_Response":
        if len(head) > LONGEST_REQUEST:
            return _Response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        request, *headers = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        target, _, protocol = rest.partition(" ")
        if not protocol.startswith("HTTP/1."):
            return _Response(HTTPStatus.BAD_REQUEST)
        if method not in ("GET", "HEAD"):
            return _Response(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            response = self._answer(target.partition("?")[0], _header(headers, "accept"))
        except Exception:
            logger.exception("could not answer %s", target)
            response = _Response(HTTPStatus.INTERNAL_SERVER_ERROR)
        response.bodiless = method == "HEAD"
        return response

    def _answer(self, path: str, accept: str) -> "_Response":
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return _Response(HTTPStatus.OK, encode(self._registry), content_type)
        if path not in self._probes:
            return _Response(HTTPStatus.NOT_FOUND, b"see /metrics, /livez and /readyz\n")
        good, reason = self._probes[path]()
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _Response(status, f"{reason}\n".encode())


@dataclass(slots=True)
class _Response:
    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    bodiless: bool = False

    def encode(self) -> bytes:
        body = self.body or f"{self.status.phrase}\n".encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if self.bodiless else body)


def _listen(host: str, port: int) -> socket.socket:
    # No look-up of the host's name, which http.server does and which may take many seconds.
    if host or not socket.has_dualstack_ipv6():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    else:
        listening = socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    listening.setblocking(False)
    return listening


def _header(lines: list[str], name: str) -> str:
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""
