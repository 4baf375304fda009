"""How long anything waits for the database, and why: every bound of the way there, in one place.

A peer that dies without a word (a machine that is gone, a firewall that forgot a connection, a
pooler that hangs) sends nothing, not even that. Whoever waits for it finds out by a deadline of
its own, or never. The goal is to know within 15 seconds: the kernel tells it of connections whose
packets nobody acknowledges, the deadlines below of those that are acknowledged and not answered.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

ANSWER_SECONDS = 10.0
"""Until a connection that has not answered a statement is dropped. Commits take milliseconds, and
what waits for a lock comes back after LOCK_SECONDS: an answer that takes longer is rare."""
PATIENT_SECONDS = 60.0
"""A statement that is only slow must not be given up forever: each one that was gives the next on
its connection twice the time, up to this."""
REQUEST_SECONDS = 15.0
"""For a connection of the pool, and again for the statements on it. Who is silent for as long is
taken for dead: a connection that nobody closed would else be waited for without end."""
REPEAT_SECONDS = 20.0
"""No try of a request begins later than that after the first: one more where that met with silence.
"""
SCAN_SECONDS = 900.0
"""For what may read a table whole, on behalf of a person; a dead host is found by the kernel."""
RELEASE_SECONDS = 2.0
"""For a statement whose caller was cancelled to end; then its connection is dropped. Whoever gave
up waits for this."""
CLOSE_SECONDS = 2.0
"""Until a pool has said goodbye to its server; then its connections are dropped."""
GOODBYE_SECONDS = 1.0
"""Until a single connection has said goodbye; then it is dropped."""
CHECK_SECONDS = 9.0
"""How often an idle listening connection is asked whether it still lives: nothing else is sent
there."""
CHECK_ANSWER_SECONDS = 5.0
LOCK_SECONDS = 2.0
"""How long a worker's own write waits for a lock: who holds it may do so forever, and the other
writes of its batch need not wait."""
REQUEST_LOCK_SECONDS = 10.0
"""A request's wait for a lock: less than it has, so that PostgreSQL says that nothing was done.
What we stop waiting for goes on there, on a connection, and takes effect once it has its lock."""
OPEN_TRANSACTION_SECONDS = 10.0
"""Behind a pooler each statement has a transaction. One whose commit never arrives keeps its locks
until the server ends it: after as long as its client takes to find out."""
REFUSED_SECONDS = 5.0
"""How old a connection is at least that is replaced since something was refused there: a role's new
settings and rights hold for new sessions. So rarely that what is refused for long costs nothing."""

KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_PROBES = 4
UNACKNOWLEDGED_SECONDS = 12
"""TCP_USER_TIMEOUT: data that nobody acknowledges for so long ends the connection."""
_SOCKET_OPTIONS = (
    # Linux and others; macOS calls the first one TCP_KEEPALIVE. What a system lacks is left out.
    (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), KEEPALIVE_IDLE_SECONDS),
    (("TCP_KEEPINTVL",), KEEPALIVE_INTERVAL_SECONDS),
    (("TCP_KEEPCNT",), KEEPALIVE_PROBES),
    (("TCP_USER_TIMEOUT",), UNACKNOWLEDGED_SECONDS * 1000),
)


def guard_socket(transport: Any) -> None:
    """Have the kernel notice when the peer is gone; nothing to do for a Unix socket."""
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in _SOCKET_OPTIONS:
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.IPPROTO_TCP, option, value)


@contextlib.contextmanager
def bounded(connection: Any, seconds: float | None = None) -> Iterator[None]:
    """Drop the connection if the block takes longer, so that whatever waits for it there fails.

    For several statements in a row, of a connection that is also used for long ones.
    """
    limit = ANSWER_SECONDS if seconds is None else seconds
    end = asyncio.get_running_loop().call_later(limit, connection.terminate)
    try:
        yield
    finally:
        end.cancel()


class Silences:
    """Counts the connections of one backend that fell silent, so that their like are not tried.

    And those that were found to lead to another server than before.

    What lost one connection (a host that is gone, a firewall that was restarted) has most often
    lost all of them. Each that was opened before the latest silence is replaced before it is used:
    a new one costs milliseconds, and each silent one that is tried costs ANSWER_SECONDS.
    """

    def __init__(self) -> None:
        self.count = 0

    def heard_nothing(self) -> None:
        """A connection has not answered in time; any thread may say so."""
        self.count += 1
