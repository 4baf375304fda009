"""Ids made by the client and the worker: UUIDs of version 7 (RFC 9562).

They grow with time, so that new rows go to the end of the primary key's index.
"""

import time
from random import getrandbits
from uuid import UUID, SafeUUID

_NANOSECONDS = 1_000_000
_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62

_set = object.__setattr__
_last = 0


def uuid7() -> UUID:
    """A new id, larger than all this process made before.

    Threads that call at the very same moment may get ids in either order, never the same one:
    62 bits are random.
    """
    global _last
    # 48 bits of milliseconds since 1970 and 12 bits of the fraction: steps of 244 ns.
    tick = max((time.time_ns() << 12) // _NANOSECONDS, _last + 1)
    _last = tick
    noise = getrandbits(62)  # ids are names, not secrets: the fast generator will do
    # What UUID(int=...) does, less its checks: every step makes one.
    made = UUID.__new__(UUID)
    _set(made, "int", (tick >> 12) << 80 | _VERSION | (tick & 0xFFF) << 64 | _VARIANT | noise)
    _set(made, "is_safe", SafeUUID.unknown)
    return made
