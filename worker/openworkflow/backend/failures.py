"""What went wrong between us and PostgreSQL, in one line with the next thing to try.

Every message names host, port and database. None can hold the password: only PostgreSQL's own
words and the parts of the `Dsn` that people may see go into it.
"""

import asyncio
import errno
import re
import socket
from pathlib import Path

import asyncpg

from openworkflow.backend.sqlstates import fault_of
from openworkflow.backend.tls import tls_error, tls_failure
from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, ConnectionLost, Fault

__all__ = [
    "DRIVER_ERRORS",
    "READ_ONLY",
    "ConnectionLost",
    "UnreadableAnswer",
    "as_backend_error",
    "is_of_messages",
    "one_line",
    "silent",
    "was_not_sent",
]

DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises. The last is its word for a connection that the server ended while it was
idle, among other things that only a new connection mends."""

READ_ONLY = "25006"
"""A primary that became a standby."""
IN_FAILED_TRANSACTION = "25P02"
_END_THE_LISTENER = (
    "; a session that listens has had a transaction open for long: end it (the server's log names "
    "its process, pg_notification_queue_usage() shows how full the queue is)"
)
_SHOW = (
    "; row security hides rows from this role: ALTER TABLE ... DISABLE ROW LEVEL SECURITY, or "
    "arrange it by `openworkflow migrate --roles --bind`"
)
_OF_ANOTHER = (
    "; this role is bound to one namespace and names another: correct namespace_id "
    "(OPENWORKFLOW_NAMESPACE), or bind a role to it: `openworkflow migrate --roles --bind`"
)
_NOT_SENT = ("cannot switch to state", "connection is closed")
"""The driver's words. A statement that was under way is "closed in the middle of operation"."""
_ABOUT_ROWS = ("23", "44")
"""Constraints and check options: the detail of such an error has all values of the row."""
_ABOUT_SQL = ("0A", "21", "42")
_ONLY_AT_LOGIN = ("28", "3D")
"""Where a person connects, trying again does not help; where a worker reconnects, it may."""
_UNREACHABLE = {
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
    errno.EADDRNOTAVAIL,
}


class UnreadableAnswer(ConnectionLost):
    """The answer holds a value that the driver cannot decode, so it gives none of it."""


def as_backend_error(error: BaseException, dsn: Dsn) -> BackendError:
    """The error to raise for what asyncpg raised."""
    if isinstance(error, BackendError):
        return error
    if (tls := tls_error(error)) is not None:
        return tls_failure(tls, dsn)
    if was_not_sent(error):
        ended = error.__context__ if isinstance(error.__context__, asyncpg.PostgresError) else None
        said = "the server ended it" if ended is None else one_line(ended)
        return ConnectionLost(f"the connection to PostgreSQL at {dsn} was lost: {said}")
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error, dsn)
    if isinstance(error, OSError):
        return _from_network(error, dsn)
    if isinstance(error, asyncpg.InterfaceError):
        return _from_driver(error, dsn)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return ConnectionLost(f"no PostgreSQL at {dsn} is {dsn.target_session_attrs}")
    if isinstance(error, asyncpg.InternalClientError):
        return ConnectionLost(f"the connection to PostgreSQL at {dsn} was lost: {one_line(error)}")
    message = f"PostgreSQL at {dsn}: {type(error).__name__}: {one_line(error)}"
    return BackendError(message).of(Fault.OURS)


def is_of_messages(error: BaseException) -> bool:
    """Whether no NOTIFY can be sent: the queue of messages, one for the whole server, is full.

    By where it says so: the SQLSTATE is that of values which are too large.
    """
    cause = error.__cause__ if isinstance(error, BackendError) else error
    return (
        isinstance(cause, asyncpg.ProgramLimitExceededError)
        and getattr(cause, "server_source_filename", None) == "async.c"
    )


def was_not_sent(error: BaseException) -> bool:
    """Whether the driver sent nothing of a statement: its connection had ended before."""
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and any(
        words in str(error) for words in _NOT_SENT
    )


def silent(dsn: Dsn, seconds: float) -> ConnectionLost:
    """The error for a connection that has not answered a statement for so long."""
    return ConnectionLost(
        f"PostgreSQL at {dsn} did not answer within {seconds:g} s, and the connection was dropped; "
        "if it happens again, look at the network in between, at poolers, and at long statements "
        "in pg_stat_activity"
    ).of(Fault.SERVER, in_doubt=True)


def _from_network(error: OSError, dsn: Dsn) -> BackendError:
    at = f"PostgreSQL at {dsn.address} (database {dsn.database!r})"
    codes = {error.errno, *map(int, re.findall(r"\[Errno (-?\d+)\]", str(error)))}
    if "rejected SSL upgrade" in str(error):
        return BackendError(
            f"{at} does not speak TLS, which sslmode={dsn.sslmode} demands; "
            "turn on ssl in postgresql.conf, or use sslmode=prefer in the database URL"
        ).of(Fault.SERVER)
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return ConnectionLost(
            f"the host of {at} cannot be looked up for now ({one_line(error)}); "
            "check that DNS answers"
        )
    if isinstance(error, socket.gaierror):
        return ConnectionLost(
            f"the host of {at} is unknown; check its spelling in the database URL, and DNS"
        )
    if isinstance(error, asyncio.TimeoutError) or codes & _UNREACHABLE:
        return ConnectionLost(
            f"{at} did not answer within {dsn.connect_timeout:g} s; check host and port, "
            "firewalls, and that the server listens on that address (listen_addresses)"
        )
    if codes & {errno.ENOENT, errno.EACCES} and not dsn.hosts[0][0].startswith("/"):
        return BackendError(
            f"a file for TLS with {at} cannot be read ({one_line(error)}); check "
            f"{' and '.join(name for name, _ in dsn.tls)} in the database URL"
        ).of(Fault.SERVER)
    if errno.ENOENT in codes:
        return ConnectionLost(f"there is no Unix socket of {at}; {_socket_advice(dsn)}")
    if errno.EACCES in codes:
        message = f"this user may not open the Unix socket of {at}"
        return BackendError(message).of(Fault.SERVER)
    if errno.ECONNREFUSED in codes:
        return ConnectionLost(
            f"{at} refused the connection; check that it runs (pg_isready {_flags(dsn)}) "
            "and that host and port are right"
        )
    return ConnectionLost(f"the connection to {at} was lost: {one_line(error)}")


def _from_driver(error: asyncpg.InterfaceError, dsn: Dsn) -> BackendError:
    if isinstance(error, asyncpg.ClientConfigurationError):
        message = f"PostgreSQL at {dsn} cannot be connected to: {one_line(error)}"
        return BackendError(message).of(Fault.SERVER)
    if isinstance(error, ValueError):
        message = f"PostgreSQL at {dsn} cannot store a value: {one_line(error)}"
        return BackendError(message).of(Fault.VALUE)
    if "closed" in str(error) or "released" in str(error):
        return ConnectionLost(f"the connection to PostgreSQL at {dsn} was lost: {one_line(error)}")
    told = f"PostgreSQL at {dsn}: {one_line(error)}"
    if "another operation is in progress" in told:
        told += "; a connection does one thing at a time: await one call before the next"
    return BackendError(told).of(Fault.OURS)


def _from_server(error: asyncpg.PostgresError, dsn: Dsn) -> BackendError:
    state, text = error.sqlstate or "", one_line(error)
    if state.startswith(_ABOUT_ROWS):
        text = " ".join(str(error.args[0]).split())  # its detail is the row, with what users sent
    at = f"PostgreSQL at {dsn.address} (database {dsn.database!r})"
    message, fault = f"{at}: {text}{_advice(error, state, text, dsn)}", fault_of(state)
    if is_of_messages(error):
        message, fault = f"{message}{_END_THE_LISTENER}", Fault.TABLE
    about_sql = fault is Fault.OURS or state.startswith(_ABOUT_SQL)
    if about_sql and error.context:  # said within a function, and so not of our SQL
        message, fault = f"{message}; look at the triggers: {_flat(error.context)}", Fault.TABLE
    if fault is Fault.SERVER and not state.startswith(_ONLY_AT_LOGIN):
        return ConnectionLost(message)
    return BackendError(message).of(fault)


def _advice(error: asyncpg.PostgresError, state: str, text: str, dsn: Dsn) -> str:
    """The next thing to try, with its semicolon; nothing where PostgreSQL says it all."""
    if advice := _login_advice(error, state, text, dsn):
        return advice
    if state == "53300":
        return (
            "; lower pool_size in the database URL, run fewer workers, raise max_connections, "
            "or put PgBouncer in between"
        )
    if state == "42501":
        grant = f"; let an administrator grant it to role {dsn.user!r}"
        if "new row violates row-level security" in text:
            return _OF_ANOTHER
        return _SHOW if "row-level security" in text else grant
    if state in ("42P01", "42703"):
        return "; the tables are missing or old: check the schema, and run `openworkflow migrate`"
    if state == "42P10":
        return "; an index is missing: run `openworkflow migrate`, which makes it again"
    if state == "57014":
        return "; raise statement_timeout for the role of the workers if this persists"
    if state == "55P03":
        return (
            "; a transaction that is open holds the row, the key or the table: "
            "pg_blocking_pids() and pg_stat_activity say whose it is"
        )
    if state == "53100":
        return "; make room on the server's disk"
    if state == READ_ONLY:
        return (
            "; this is a standby: use target_session_attrs=read-write in the database URL; or "
            "default_transaction_read_only is on for the role or database, or the transaction "
            "that was given as connection= is read-only"
        )
    if state == IN_FAILED_TRANSACTION:
        return "; a statement before it failed: roll back, to a savepoint at least, and begin again"
    if "startup parameter" in text:
        return "; a pooler refuses it: leave it out of the database URL"
    if "transaction blocks not allowed" in text:
        return "; set pool_mode of PgBouncer to transaction or session"
    return ""


def _login_advice(error: asyncpg.PostgresError, state: str, text: str, dsn: Dsn) -> str:
    if isinstance(error, asyncpg.InvalidPasswordError):
        return "; check user and password in the database URL, special characters percent-encoded"
    if "no pg_hba.conf entry" in text or "pg_hba.conf rejects" in text:
        if "no encryption" in text or "SSL off" in text:
            return "; the server may require TLS: use sslmode=require in the database URL"
        return "; let an administrator allow this host, user and database in pg_hba.conf"
    if "certificate" in text and state.startswith("28"):
        return (
            "; name the certificate of this user, and its key: sslcert, sslkey in the database URL"
        )
    if state == "08003" and any(name == "sslcert" for name, _ in dsn.tls):
        return "; if it does so each time, see in the server's log whether it refuses sslcert"
    if state.startswith("28"):
        return "; check the user in the database URL, and pg_hba.conf"
    if state == "3D000" or "no such database" in text:
        return f"; create it (createdb {_flags(dsn)} {dsn.database}) or correct the database URL"
    return ""


def _socket_advice(dsn: Dsn) -> str:
    """What to do where a socket is not there; a folder that has data too is that of `dev`."""
    if (Path(dsn.hosts[0][0]) / "PG_VERSION").is_file():
        return "it is the database of `openworkflow dev`, which does not run now: start that"
    return "check that PostgreSQL runs and its unix_socket_directories"


def _flags(dsn: Dsn) -> str:
    host, port = dsn.hosts[0]
    return f"-h {host} -p {port}"


def one_line(error: BaseException) -> str:
    """The message of an error, with PostgreSQL's detail and hint, without line breaks."""
    return _flat(error) or type(error).__name__


def _flat(text: object) -> str:
    return " ".join(str(text).split())
