"""The addresses of a host's name: what it leads to now, and how to connect to one of them.

A name may lead to several servers, or still to one that is gone. The driver tries its addresses in
turn within one timeout, so that a first one which never answers would take the whole of it, at
each connection and forever; and the server it does not want is the last it tries.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any

Place = tuple[str, int]

_first: dict[Place, str] = {}
"""By host and port: the address to begin with. It is the one that was connected to last, or the
one after those that never answered: whoever is cut short while he tries goes on there."""


async def addresses(host: str, port: int, seconds: float) -> Sequence[str]:
    """The addresses of the host, the one that answered last before the others.

    Raises OSError: of socket.gaierror for a name that is not known, and where nobody says within
    these seconds what it is.
    """
    if _is_an_address(host):
        return (host,)
    looking_up = asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(seconds):
            found = await looking_up
    except TimeoutError as error:
        raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {seconds:g} s") from error
    except UnicodeError as error:  # an empty part, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a name of a host") from error
    known = list(dict.fromkeys(str(place[0]) for *_, place in found))
    first = _first.get((host, port))
    begin = known.index(first) if first in known else 0
    return (*known[begin:], *known[:begin])


def begin_with(host: str, port: int, address: str) -> None:
    """Have the next connection to this host try this address of its name first."""
    _first[host, port] = address


class LoopTowards:
    """The running loop, but what is connected to a name in it is connected to this address.

    The driver takes its connections from the loop that it is given, and its host for the name that
    a certificate has to have.
    """

    def __init__(self, address: str) -> None:
        self._address, self._loop = address, asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._loop, name)
        setattr(self, name, found)  # so that a statement costs no more than on the loop itself
        return found

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int, **options: Any
    ) -> Any:
        """Connect as the loop does, to the address."""
        if options.get("ssl") is not None:
            options.setdefault("server_hostname", host)
        return await self._loop.create_connection(factory, self._address, port, **options)


def _is_an_address(host: str) -> bool:
    if host.startswith("/"):  # the folder of a Unix socket
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
