"""Names of hosts that lead where a test says, and an address that never answers."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

DEAD = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.2"
"""Of this process alone: the tests of others use the same port."""
_look_up = socket.getaddrinfo


class Names:
    """Stands in for the system's look-up; all other names are the system's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, list[str] | OSError] = {}
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if host not in self.known:
            return _look_up(host, port, *arguments, **named)
        self.asked += 1
        found = self.known[host]
        if isinstance(found, OSError):
            raise found
        stream = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*stream, (address, port)) for address in found]


@contextlib.contextmanager
def dead_at(port: int) -> Iterator[None]:
    """DEAD takes no more connections on this port and refuses none, as a machine that is gone."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((DEAD, port))
        listening.listen(0)
        for _ in range(4):  # what the kernel accepts without being asked
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((DEAD, port))
        yield


def named(url: str, host: str, **query: object) -> str:
    """The URL with another name for its host."""
    split = urlsplit(url)
    options = "&".join(f"{name}={value}" for name, value in query.items())
    return f"postgresql://{split.username}@{host}:{split.port}{split.path}?{options}"


def port_of(url: str) -> int:
    """The port of the URL."""
    port = urlsplit(url).port
    assert port is not None
    return port
