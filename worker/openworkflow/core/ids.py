"""Ids made by the client and the worker: UUIDs of version 7 (RFC 9562).

They grow with time, so that new rows go to the end of the primary key's index.
"""

import time
from collections.abc import Callable
from random import getrandbits
from struct import Struct
from uuid import UUID

_NANOSECONDS = 1_000_000
_VERSION = 0x7 << 12
_CHILD_VERSION = 0x8 << 12
_VARIANT = 0x2 << 62
_octets = Struct(">QQ").pack

DEEPEST = 0x3F
"""The bits of a depth."""

_last = 0


def _plain(octets: bytes) -> UUID:
    return UUID(bytes=octets)


make: Callable[[bytes], UUID] = _plain
"""Makes an id of its 16 bytes. Each step makes one, so the backend puts its driver's own class
here, a subclass of UUID in C: ten times faster made, and sent as it is."""


def uuid7() -> UUID:
    """A new id, larger than all this process made before.

    Threads that call at the very same moment may get ids in either order, never the same one:
    62 bits are random.
    """
    global _last
    # 48 bits of milliseconds since 1970 and 12 bits of the fraction: steps of 244 ns.
    tick = (time.time_ns() << 12) // _NANOSECONDS
    if tick <= _last:
        tick = _last + 1
    _last = tick
    noise = getrandbits(62)  # ids are names, not secrets: the fast generator will do
    return make(_octets((tick >> 12) << 16 | _VERSION | tick & 0xFFF, _VARIANT | noise))


def child_id(depth: int) -> UUID:
    """A new id for a child, and for the step attempt that starts it: it tells how deep that is.

    Like one of version 7, but of version 8, which is for what is one's own: six of the random bits
    are the depth. So whoever holds a run knows that it has a parent without asking for it.
    """
    first, last = divmod(uuid7().int, 1 << 64)
    low = last & ~(DEEPEST << 56) | depth << 56
    return make(_octets(first & ~0xF000 | _CHILD_VERSION, low))


def depth_of(run_id: UUID) -> int:
    """How many runs are above it; 0 for one that is no child."""
    octets = run_id.bytes
    return octets[8] & DEEPEST if octets[6] >> 4 == 8 else 0


def tick_of(made: UUID) -> int:
    """When an id was made: of two that one process made the first one has the smaller tick."""
    first = made.int >> 64
    return (first >> 16) << 12 | first & 0xFFF
