"""A network between the workers and their server that misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Pair:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False
    """Nothing passes any more, and nobody is told."""
    answer_lost: bool = False


@dataclass
class Proxy:
    """Passes bytes on; `url` is what the workers connect to."""

    upstream_port: int
    port: int = 0
    delay: float = 0.0
    """Seconds that each piece takes longer, in each direction."""
    lose: int = 0
    """So many statements are still to be executed whose answers are lost, with their connection."""
    about: bytes = b""
    """What such a statement holds."""
    lost: int = 0
    hush: bytes = b""
    """A connection falls silent when its client sends this; what it holds is swallowed."""
    hushes: int = 1_000_000
    """So many more of them."""
    keeps: bool = True
    """The server does not hear that the client of a silent connection has left."""
    deaf: bool = False
    """New connections are accepted, and nothing more."""
    _pairs: set[_Pair] = field(default_factory=set)
    _left: list[asyncio.StreamWriter] = field(default_factory=list)
    """Connections to the server whose clients are gone without a word."""
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self.cut()
        await asyncio.gather(*self._handlers)
        self.forget()

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.client.transport.abort()
            pair.server.transport.abort()
        return len(pairs)

    def pause(self) -> None:
        """Hold everything back until `resume`; connections stay open."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def silence(self) -> int:
        """The connections there are pass nothing on forever; new ones work.

        The server gives up those of the silence before, lest it has none left to give.
        """
        self.forget()
        for pair in self._pairs:
            pair.silent = True
        return len(self._pairs)

    def forget(self) -> None:
        """Close the server's side of connections that fell silent and whose clients have left."""
        for server in self._left:
            server.transport.abort()
        self._left.clear()

    @property
    def silent(self) -> int:
        """How many connections are silent, and still open on the client's side."""
        return sum(pair.silent for pair in self._pairs)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._carry(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.deaf:
            with contextlib.suppress(OSError):
                await reader.read()
            writer.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, server)
        self._pairs.add(pair)
        both = [
            asyncio.create_task(self._forward(pair, reader, server)),
            asyncio.create_task(self._answer(pair, server_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.transport.abort()
            if pair.silent and self.keeps:  # nor does the server hear that the client has left
                self._left.append(server)
            else:
                server.transport.abort()

    async def _forward(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._pass(pair)
                if self.hush and self.hushes and self.hush in data:
                    self.hushes -= 1
                    pair.silent = True
                if pair.silent:
                    continue
                # A prepared statement is bound and executed: B, E and S are in one piece.
                if self.lose and data[:1] == b"B" and self.about in data:
                    self.lose -= 1
                    self.lost += 1
                    pair.answer_lost = True
                writer.write(data)

    async def _answer(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._pass(pair)
                if pair.answer_lost:
                    return  # the server has done it
                if not pair.silent:
                    writer.write(data)

    async def _pass(self, pair: _Pair) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if not self._flowing.is_set():
            await self._flowing.wait()
