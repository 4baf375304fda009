"""Ports for the servers that tests start, or where nobody is to answer."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

_LOWEST = 10_000
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of this machine where nobody listens, and that nobody gets by chance.

    Those that the kernel gives out are taken again at once: each of the connections of the other
    tests has one. And whoever connects to one that is free may be given it, and meet itself.
    """
    for _ in range(1000):
        port = _LOWEST + secrets.randbelow(_first_given() - _LOWEST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def _first_given() -> int:
    try:
        first = int(_GIVEN.read_text().split()[0])
    except FileNotFoundError:  # no Linux: 49152 and above
        return 32_768
    return first if first > _LOWEST + 1000 else 65_536
