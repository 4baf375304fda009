"""Looks up the names of tenants' servers, each in a thread that nobody else waits for.

The names are the tenants', and so may be the servers that answer for them, or never do. The
system's look-up cannot be cut short; in a pool that is shared, a few dead names hold all threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Sequence

Place = tuple[str, int]


class Resolver:
    """At most one thread for each name at a time, however often it is asked for."""

    def __init__(self) -> None:
        self._under_way: dict[Place, asyncio.Future[tuple[str, ...]]] = {}

    @property
    def under_way(self) -> int:
        """Names that are being looked up."""
        return len(self._under_way)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, in the order in which to try them; OSError if it has none.

        To give up waiting leaves the look-up going; whoever asks next waits for the same one.
        """
        if _is_address(host):
            return (host,)
        lookup = self._under_way.get((host, port))
        if lookup is None:
            lookup = self._begin(host, port)
        return await asyncio.shield(lookup)

    def _begin(self, host: str, port: int) -> asyncio.Future[tuple[str, ...]]:
        loop, place = asyncio.get_running_loop(), (host, port)
        lookup: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self._under_way[place] = lookup

        def end(found: tuple[str, ...] | Exception) -> None:
            if self._under_way.get(place) is lookup:
                del self._under_way[place]
            if lookup.done():
                return
            if isinstance(found, Exception):
                lookup.set_exception(found)
                lookup.exception()  # maybe nobody waits any more
            else:
                lookup.set_result(found)

        def look_up() -> None:
            found = _look_up(host, port)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, found)

        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        return lookup


def _look_up(host: str, port: int) -> tuple[str, ...] | Exception:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
