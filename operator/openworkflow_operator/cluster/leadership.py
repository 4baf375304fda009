"""Which of several operators acts: the holder of a Lease.

A holder that stops gives the Lease back, so that the next one starts within a renewal; one that
died is replaced after the Lease's duration. The clock of the holder is never compared with ours:
a Lease is over when we did not see it change for its duration. That is longer than set where the
API server takes seconds for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import LEASE
from openworkflow_operator.cluster.client import REQUEST_SECONDS, Cluster, ClusterError
from openworkflow_operator.decide.installations import Installation

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

#: The Lease lasts at least as long as so many answers of the API server: a holder needs two in
#: two thirds of it, and with a fixed time nobody ever leads by a server that is slower.
ANSWERS: Final = 4
#: It gets shorter by no more each time. Who wrote so and heard no answer acts for two thirds of
#: what it had before, and has to end sooner than others may take over.
SHRINKING: Final = 0.7


class LeadershipLost(Exception):
    """Somebody else may act now, so this process must end."""


class Leadership:
    """Candidate for one Lease; `seconds` is how long it holds without renewal."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, seconds: float = 15.0
    ) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._identity, self._seconds = identity, seconds
        self._seen: tuple[str, float] | None = None
        self._held: dict[str, Any] | None = None
        """The Lease as this operator last wrote it, while nobody else is known to have."""
        self._lasting = self._until = 0.0
        """For how long, and until when this operator may act on it."""
        self._asked = self._took = 0.0
        self._patience = min(seconds / 3, REQUEST_SECONDS)
        self._told = ""
        self.is_leader = False
        self.installation: Installation | None = None
        """Which installation this is, known once the Lease was seen."""

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for the Lease and keep it during the block; raises LeadershipLost from it."""
        while not await self._try():  # noqa: ASYNC110  only asking can tell
            await asyncio.sleep(self._seconds / 7)
        self.is_leader = True
        logger.info("this operator leads now")
        try:
            async with asyncio.TaskGroup() as tasks:
                renewal = tasks.create_task(self._renew(), name="lease")
                yield
                renewal.cancel()
        finally:
            self.is_leader = False
            with contextlib.suppress(ClusterError, TimeoutError):
                await self._give_back()

    async def _renew(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(self._until - time.monotonic()):
                    # The time of an answer is part of the pause: it is waited for anyway.
                    since = time.monotonic() - self._asked
                    await asyncio.sleep(max(self._seconds / 7 - since, self._seconds / 50))
                    await self._try()
        raise LeadershipLost

    async def _try(self) -> bool:
        """Take or renew the Lease; False while another holds it or the API does not answer."""
        known, self._held = self._held, None
        try:
            if known is None:
                known = await self._find()
                if known is not None and not self._is_free(known):
                    if self.is_leader:
                        raise LeadershipLost  # somebody gave it to another
                    return False
            await self._write(known, self._lasts())
        except (ClusterError, TimeoutError) as error:
            self._tell(error)
            return False
        self._tell(None)
        return True

    async def _write(self, known: dict[str, Any] | None, lasts: float) -> None:
        asked, lease = time.monotonic(), self._lease(known or {}, lasts)
        writing = self._cluster.create if known is None else self._cluster.replace
        held = await self._answered(writing(LEASE, self._namespace, lease))
        # Others may have seen it as early as it was asked for.
        self._held, self._lasting, self._until = held, lasts, asked + lasts * 2 / 3
        # By its place, so that one that is removed and installed again is known as the same.
        if since := held["metadata"].get("creationTimestamp"):
            self.installation = Installation(self._namespace, since)

    async def _find(self) -> dict[str, Any] | None:
        return await self._answered(self._cluster.get(LEASE, self._namespace, self._name))

    async def _answered(self, request: Awaitable[_Answer]) -> _Answer:
        """The answer; one that does not come is waited for longer the next time."""
        self._asked = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                answer = await request
        except TimeoutError:
            self._patience = min(2 * self._patience, REQUEST_SECONDS)
            raise
        self._took = time.monotonic() - self._asked
        self._patience = min(max(self._seconds / 3, 2 * self._took), REQUEST_SECONDS)
        return answer

    def _lasts(self) -> float:
        """For how long it is held when it is written now."""
        return max(self._seconds, ANSWERS * self._took, SHRINKING * self._lasting)

    def _tell(self, error: ClusterError | TimeoutError | None) -> None:
        """Warn of what keeps everybody from leading, or makes that slow, once.

        409 is another who was faster.
        """
        if getattr(error, "status", 0) == 409:
            return
        what = _SLOW if self._lasts() > self._seconds else ""
        if error is not None:
            silent = isinstance(error, TimeoutError)
            what = _FAULT.format("no answer in time" if silent else error)
        level = logging.WARNING if what not in ("", self._told) else logging.DEBUG
        self._told = what
        if what:
            logger.log(level, "the Lease %s/%s %s", self._namespace, self._name, what)

    def _is_free(self, lease: dict[str, Any]) -> bool:
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        now = time.monotonic()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
            return False
        lasts = (lease["spec"].get("leaseDurationSeconds") or 0) or self._seconds
        return now - self._seen[1] > lasts

    def _lease(
        self, lease: dict[str, Any], lasts: float, holder: str | None = None
    ) -> dict[str, Any]:
        spec = lease.get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": "Lease",
            "metadata": lease.get("metadata") or {"name": self._name},
            "spec": {
                "holderIdentity": self._identity if holder is None else holder,
                "leaseDurationSeconds": max(1, math.ceil(lasts)),
                "acquireTime": spec.get("acquireTime", now) if is_ours else now,
                "renewTime": now,
                "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if is_ours else 1),
            },
        }

    async def _give_back(self) -> None:
        lease = self._held or await self._find()
        if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            free = self._lease(lease, self._seconds, holder="")
            await self._answered(self._cluster.replace(LEASE, self._namespace, free))


_FAULT: Final = "was not asked for or written, without which nothing is operated: {}"
_SLOW: Final = (
    "is held for longer than OPENWORKFLOW_OPERATOR_LEASE_SECONDS, since the API server takes "
    "seconds to answer: a leader that dies is replaced that much later"
)
