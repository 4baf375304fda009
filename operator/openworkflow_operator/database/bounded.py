"""An event loop for one connection, that reads no more from its server than it was allowed.

The server of a tenant may be hostile: it need not care for LIMIT, and asyncpg takes in whatever
comes, the answer to the password included. asyncpg takes its connections from the loop it is
given, so this one hands it connections that count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)


class AnswerTooLarge(OSError):
    """The server sent more than it may. An OSError, which asyncio closes on without a log."""


class BoundedLoop:
    """The running loop, in whose connections at most `limit` bytes arrive between two resets."""

    def __init__(self, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit, self._received = limit, 0
        self._transports: list[asyncio.Transport] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    @property
    def exceeded(self) -> bool:
        """Whether a connection was cut because too much arrived."""
        return self._received > self._limit

    def reset(self) -> None:
        """Allow as much again."""
        self._received = 0

    def abort(self) -> None:
        """Close every connection; asyncpg forgets some that fail in their first moments."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def create_connection(
        self, factory: Callable[[], P], *arguments: Any, **options: Any
    ) -> tuple[asyncio.Transport, P]:
        """As asyncio's; what arrives without TLS is counted."""
        transport, protocol = await self._loop.create_connection(
            lambda: self._counting(factory()), *arguments, **options
        )
        self._transports.append(transport)
        return transport, protocol

    async def start_tls(self, *arguments: Any, **options: Any) -> asyncio.Transport | None:
        """As asyncio's; what arrives within TLS is counted from the next `set_protocol` on."""
        transport: Any = await self._loop.start_tls(*arguments, **options)
        if transport is not None:
            attach = transport.set_protocol
            transport.set_protocol = lambda protocol: attach(self._counting(protocol))
        return transport  # type: ignore[no-any-return]

    def _counting(self, protocol: P) -> P:
        # Set on the object: asyncpg needs its own protocol back, not one around it.
        receive = protocol.data_received  # type: ignore[attr-defined]

        def data_received(data: bytes) -> None:
            self._received += len(data)
            if self.exceeded:
                raise AnswerTooLarge
            receive(data)

        protocol.data_received = data_received  # type: ignore[attr-defined]
        return protocol
