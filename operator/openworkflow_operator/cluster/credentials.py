"""Reads the connection URL of a resource from its Secret, one Secret at a time.

The operator may only `get` Secrets, never list or watch them: a list would hold them all. So they
are read again now and then, and sooner while something is wrong with them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import time
from dataclasses import dataclass
from typing import Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.database.dsn import Dsn, InvalidUrl, digest, parse
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason

#: How old a reading may be while all is well, and while the database cannot be read.
FRESH_SECONDS: Final = 60.0
FRESH_SECONDS_IN_TROUBLE: Final = 3.0
#: How often to ask for a Secret that was never read before the resource is told so.
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the Secret holds: a way to connect, or the problem with it."""

    dsn: Dsn | None = None
    digest: str | None = None
    """Digest of the URL, also of one that the operator cannot use: workers may be able to."""
    problem: DatabaseProblem | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    source: tuple[str, str, str]
    value: bytes | None
    at: float
    credentials: Credentials


class CredentialsReader:
    """Remembers the last reading of each resource."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._readings: dict[Key, _Reading] = {}
        self._failures: dict[Key, int] = {}

    async def read(self, resource: WorkflowNamespace, in_trouble: bool) -> Credentials:
        """The credentials, at most a few seconds old while in trouble.

        Raises ClusterError when the API server does not answer. A refusal is a problem instead,
        and so is a Secret that it does not give at several tries, such as one it cannot decrypt:
        else whoever waits to know what this resource claims would wait as long.
        """
        source = (resource.uid, resource.database.secret_name, resource.database.secret_key)
        known = self._readings.get(resource.key)
        fresh = FRESH_SECONDS_IN_TROUBLE if in_trouble else FRESH_SECONDS
        now = time.monotonic()
        fresh *= random.uniform(0.8, 1.0)  # so that not all are read at once
        if known is not None and known.source == source and now - known.at < fresh:
            return known.credentials
        try:
            value, problem = await self._value(resource)
        except ClusterError:
            if known is not None and known.source == source:
                return known.credentials  # one Secret that cannot be read now stops no visit
            if self._has_hope(resource.key):
                raise
            return Credentials(problem=_not_given(resource.database.secret_name))
        self._failures.pop(resource.key, None)
        unchanged = known is not None and known.source == source and known.value == value
        if known is not None and unchanged and value is not None:
            self._readings[resource.key] = _Reading(source, value, now, known.credentials)
            return known.credentials
        found = (
            Credentials(problem=problem)
            if value is None
            else await asyncio.to_thread(_interpret, value, resource.uid)
        )
        self._readings[resource.key] = _Reading(source, value, now, found)
        return found

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._readings.pop(key, None)
        self._failures.pop(key, None)

    def _has_hope(self, key: Key) -> bool:
        """Whether the next try may be the one that succeeds; counts this one."""
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._failures[key] < TRIES

    async def _value(
        self, resource: WorkflowNamespace
    ) -> tuple[bytes | None, DatabaseProblem | None]:
        name, key = resource.database.secret_name, resource.database.secret_key
        try:
            secret = await self._cluster.get(kinds.SECRET, resource.key.namespace, name)
        except ClusterError as error:
            if error.status != 403:
                raise
            message = f"the operator may not read the Secret {name!r}: check its Role"
            return None, DatabaseProblem(DatabaseReason.SECRET_FORBIDDEN, message)
        if secret is None:
            message = f"there is no Secret {name!r} in the namespace"
            return None, DatabaseProblem(DatabaseReason.SECRET_NOT_FOUND, message)
        data = secret.get("data") or {}
        if not data.get(key):
            message = f"the Secret {name!r} has no key {key!r}; set `database.secretRef.key`"
            if key in data:
                message = f"the key {key!r} of the Secret {name!r} is empty; put the URL there"
            return None, DatabaseProblem(DatabaseReason.SECRET_KEY_MISSING, message)
        try:
            return base64.b64decode(data[key], validate=True), None
        except binascii.Error:
            message = f"the key {key!r} of the Secret {name!r} cannot be decoded"
            return None, DatabaseProblem(DatabaseReason.INVALID_URL, message)


def _not_given(name: str) -> DatabaseProblem:
    message = f"the API server does not give the Secret {name!r}; it is asked again"
    return DatabaseProblem(DatabaseReason.SECRET_UNREADABLE, message)


def _interpret(value: bytes, uid: str) -> Credentials:
    try:
        url = value.decode()
    except UnicodeDecodeError:
        problem = DatabaseProblem(DatabaseReason.INVALID_URL, "the URL must be UTF-8 text")
        return Credentials(problem=problem)
    try:
        return Credentials(parse(url), digest(url, uid))
    except InvalidUrl as error:
        problem = DatabaseProblem(DatabaseReason.INVALID_URL, str(error))
        return Credentials(digest=digest(url, uid), problem=problem)
