"""What a look at a database gave: counts of one namespace, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from openworkflow_operator.decide.rollout import BuildView
from openworkflow_operator.decide.scaling import Demand


class DatabaseReason(StrEnum):
    """Reasons of the condition DatabaseReachable; part of the API."""

    REACHABLE = "Reachable"
    NOT_OBSERVED = "NotObserved"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_KEY_MISSING = "SecretKeyMissing"
    SECRET_FORBIDDEN = "SecretForbidden"
    SECRET_UNREADABLE = "SecretUnreadable"
    INVALID_URL = "InvalidURL"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    DATABASE_NOT_FOUND = "DatabaseNotFound"
    TLS_FAILED = "TLSFailed"
    UNREACHABLE = "Unreachable"
    TIMED_OUT = "TimedOut"
    TOO_MANY_CONNECTIONS = "TooManyConnections"
    PERMISSION_DENIED = "PermissionDenied"
    READ_ONLY = "ReadOnly"
    SCHEMA_MISSING = "SchemaMissing"
    SCHEMA_TOO_NEW = "SchemaTooNew"
    QUERY_FAILED = "QueryFailed"


#: Of these a database comes back by itself; they say nothing about who asks.
OUTAGES: Final = frozenset(
    {
        DatabaseReason.UNREACHABLE,
        DatabaseReason.TIMED_OUT,
        DatabaseReason.TOO_MANY_CONNECTIONS,
        DatabaseReason.READ_ONLY,
        DatabaseReason.QUERY_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class NewRuns:
    """Due runs that no build has begun."""

    due: int
    oldest_due_age: float
    saturated: bool = False
    """There may be more."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A successful look at one namespace."""

    demand: Demand
    at: datetime
    serial: int
    """Grows with every look at the database: a decision takes each look into account once."""
    busy: Mapping[str, int] = field(default_factory=dict)
    """Runs in progress by pod."""
    next_wake_seconds: float | None = None
    """Until the next sleeping run is due."""
    builds: Mapping[str, BuildView] | None = None
    """None where nobody asked for them."""
    new: NewRuns | None = None
    """None where there are no builds: all are."""


@dataclass(frozen=True, slots=True)
class DatabaseProblem:
    """A look that failed. The message is made here: nothing of the URL or the server's text."""

    reason: DatabaseReason
    message: str
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Pruning:
    """How the last pass over a database's finished runs ended."""

    problem: DatabaseProblem | None = None


DatabaseView = Observation | DatabaseProblem
