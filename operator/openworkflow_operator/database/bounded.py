"""An event loop for one connection, that lets its server do no more than it was allowed.

The server of a tenant may be hostile: it need not care for LIMIT, and asyncpg takes in whatever
comes, the answer to the password included. asyncpg takes its connections from the loop it is
given, so this one hands it connections that count, and that lead where it was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from openworkflow_operator.database.diagnosis import AnswerTooLarge, CostlyLogin, NameUnanswered
from openworkflow_operator.database.login import Login

P = TypeVar("P", bound=asyncio.BaseProtocol)
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: What may arrive between two looks: some thousand notifications.
MOST_IDLE_BYTES: Final = 256 * 2**10
#: For all addresses of a name together: less than a connection is given, so that one which never
#: answers leaves time for the next, and for what comes after.
ADDRESSES_SECONDS: Final = 4.0


class BoundedLoop:
    """The running loop, in whose connections at most `limit` bytes arrive for one answer."""

    def __init__(self, limit: int, resolve: Resolve) -> None:
        self._loop = asyncio.get_running_loop()
        self._most, self._limit, self._received = limit, limit, 0
        self._resolve = resolve
        self._found: dict[tuple[str, int], Sequence[str]] = {}
        self._transports: list[asyncio.Transport] = []
        self._looks_up = False
        self.total = 0
        """Bytes that arrived so far."""
        self.refusal: Exception | None = None
        """Why a connection was cut."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    @contextlib.asynccontextmanager
    async def limited(self, seconds: float) -> AsyncIterator[None]:
        """Give the server this much time, and the bytes of one answer.

        Afterwards only what may come without being asked for.
        """
        self._limit, self._received = self._most, 0
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:
            if self.refusal is not None:
                raise self.refusal from error
            if self._looks_up and isinstance(error, TimeoutError):
                raise NameUnanswered from error
            raise
        finally:
            self._limit, self._received = MOST_IDLE_BYTES, 0

    def abort(self) -> None:
        """Close every connection; asyncpg forgets some that fail in their first moments."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def create_connection(
        self, factory: Callable[[], P], host: str, port: int, **options: Any
    ) -> tuple[asyncio.Transport, P]:
        """Connect, as asyncio does, to an address that was checked; what arrives is counted.

        A name is looked up once: it may lead elsewhere a moment later.
        """
        self._looks_up = True  # for as long as nobody answers
        if (host, port) not in self._found:
            self._found[host, port] = await self._resolve(host, port)
        self._looks_up = False
        failure: OSError | None = None
        found = self._found[host, port]
        for address in found:
            seconds = None if address == found[-1] else ADDRESSES_SECONDS / len(found)
            try:
                async with asyncio.timeout(seconds):
                    transport, protocol = await self._loop.create_connection(
                        lambda: self._counting(self._guarded(factory())), address, port, **options
                    )
            except OSError as error:
                failure = error
                continue
            self._transports.append(transport)
            return transport, protocol
        raise failure or OSError("the name has no address")

    async def start_tls(
        self, transport: asyncio.Transport, *arguments: Any, **options: Any
    ) -> asyncio.Transport | None:
        """Start TLS, as asyncio does; what arrives afterwards is counted as on the wire."""
        secured: Any = await self._loop.start_tls(transport, *arguments, **options)
        if secured is not None:
            self._count_wire(transport)
            attach = secured.set_protocol
            secured.set_protocol = lambda protocol: attach(self._guarded(protocol))
        return secured  # type: ignore[no-any-return]

    def _take(self, size: int) -> None:
        self.total += size
        self._received += size
        if self._received > self._limit:
            self.refusal = AnswerTooLarge()
            raise self.refusal

    def _counting(self, protocol: P) -> P:
        # Set on the object: asyncpg needs its own protocol back, not one around it.
        receive = protocol.data_received  # type: ignore[attr-defined]

        def data_received(data: bytes) -> None:
            self._take(len(data))
            receive(data)

        protocol.data_received = data_received  # type: ignore[attr-defined]
        return protocol

    def _count_wire(self, transport: asyncio.Transport) -> None:
        protocol: Any = transport.get_protocol()
        receive = protocol.buffer_updated

        def buffer_updated(size: int) -> None:
            self._take(size)
            receive(size)

        protocol.buffer_updated = buffer_updated

    def _guarded(self, protocol: P) -> P:
        if not isinstance(protocol, asyncpg.protocol.Protocol):
            return protocol
        guarded: Any = protocol
        receive, login = guarded.data_received, Login()

        def data_received(data: bytes) -> None:
            try:
                ready = login.take(data)
            except (AnswerTooLarge, CostlyLogin) as error:
                self.refusal = error
                raise
            if ready:
                receive(ready)

        guarded.data_received = data_received
        return protocol
