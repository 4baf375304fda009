"""Why a database could not be read, as a reason and advice that quote nothing of the error.

The server's words may hold its address, the user or the URL, and the server itself may be hostile;
so the texts are ours, chosen by the kind of error.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

import asyncpg

from openworkflow_operator.database.dsn import InvalidUrl
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason


class SchemaTooNew(Exception):
    """The schema's contract is newer than the one this operator knows."""


class SchemaMissing(Exception):
    """The tables are not there."""


class UnusableAnswer(Exception):
    """The server answered something else than was asked for."""


class NameUnanswered(OSError):
    """The host's name was not looked up in time: no server was asked, so none was slow.

    The system gives up some seconds later, and would say that it is unreachable.
    """


class AnswerTooLarge(OSError):
    """The server sent more than it may. An OSError, which asyncio closes on without a log."""


class CostlyLogin(OSError):
    """The server asks for more work than it is given; the message says how much that is."""


_ADVICE: Final = {
    DatabaseReason.AUTHENTICATION_FAILED: "the server refused user, password or host: check the "
    "URL in the Secret and pg_hba.conf",
    DatabaseReason.DATABASE_NOT_FOUND: "the server has no such database: create it or correct the "
    "URL in the Secret",
    DatabaseReason.TLS_FAILED: "TLS as the URL's `sslmode` demands it failed: check the server's "
    "certificate, its name, and the CA the operator was given",
    DatabaseReason.UNREACHABLE: "nothing answers at the URL's host and port: check both, DNS, "
    "network policies and the server",
    DatabaseReason.TIMED_OUT: "the database did not answer in time",
    DatabaseReason.TOO_MANY_CONNECTIONS: "the server has no connection left: raise "
    "max_connections or use a pooler",
    DatabaseReason.PERMISSION_DENIED: "the role may not read `workflow_runs`: grant SELECT on it",
    DatabaseReason.READ_ONLY: "the database is read-only: the URL must lead to the primary",
    DatabaseReason.SCHEMA_MISSING: "the tables are missing or too old: run `openworkflow migrate`",
    DatabaseReason.SCHEMA_TOO_NEW: "the contract of the tables is newer than this operator: "
    "upgrade the operator",
    DatabaseReason.QUERY_FAILED: "the run counts could not be read",
}

_BY_STATE: Final = {
    "28": DatabaseReason.AUTHENTICATION_FAILED,
    "3D": DatabaseReason.DATABASE_NOT_FOUND,
    "42501": DatabaseReason.PERMISSION_DENIED,
    "42P01": DatabaseReason.SCHEMA_MISSING,
    "42703": DatabaseReason.SCHEMA_MISSING,
    "3F": DatabaseReason.SCHEMA_MISSING,
    "53": DatabaseReason.TOO_MANY_CONNECTIONS,
    "25006": DatabaseReason.READ_ONLY,
    "55P03": DatabaseReason.TIMED_OUT,
    "57014": DatabaseReason.TIMED_OUT,
    "57": DatabaseReason.UNREACHABLE,
    "08": DatabaseReason.UNREACHABLE,
}


#: Where advice on deleting differs from that on reading.
_PRUNING_ADVICE: Final = {
    DatabaseReason.PERMISSION_DENIED: "the role may not delete runs: grant SELECT, UPDATE and "
    "DELETE on `workflow_runs`",
    DatabaseReason.QUERY_FAILED: "the finished runs could not be deleted",
}


def diagnose(error: BaseException, pruning: bool = False) -> DatabaseProblem:
    """The reason of the condition, and what to do about it."""
    if isinstance(error, InvalidUrl):
        return DatabaseProblem(DatabaseReason.INVALID_URL, str(error))
    if isinstance(error, CostlyLogin):
        return DatabaseProblem(DatabaseReason.AUTHENTICATION_FAILED, str(error))
    reason = _reason(error)
    advice = _ADVICE | _PRUNING_ADVICE if pruning else _ADVICE
    return DatabaseProblem(reason, advice[reason])


def _reason(error: BaseException) -> DatabaseReason:
    match error:
        case SchemaTooNew():
            return DatabaseReason.SCHEMA_TOO_NEW
        case SchemaMissing():
            return DatabaseReason.SCHEMA_MISSING
        case AnswerTooLarge():
            return DatabaseReason.QUERY_FAILED
        case asyncpg.PostgresError():
            return _of_state(error.sqlstate or "")
        case ssl.SSLError():
            return DatabaseReason.TLS_FAILED
        case TimeoutError() | asyncio.TimeoutError():
            return DatabaseReason.TIMED_OUT
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return DatabaseReason.TLS_FAILED
        case OSError() | socket.gaierror() | UnicodeError() | asyncpg.InternalClientError():
            return DatabaseReason.UNREACHABLE
        case asyncpg.InterfaceError() if "closed" in str(error):
            return DatabaseReason.UNREACHABLE
        case _:
            return DatabaseReason.QUERY_FAILED


def _of_state(state: str) -> DatabaseReason:
    for prefix in (state, state[:2]):
        if prefix in _BY_STATE:
            return _BY_STATE[prefix]
    return DatabaseReason.QUERY_FAILED
