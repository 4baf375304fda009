"""Which of several operators acts: the holder of a Lease.

A holder that stops gives the Lease back, so that the next one starts within a renewal; one that
died is replaced after the Lease's duration. The clock of the holder is never compared with ours:
a Lease is over when we did not see it change for its duration.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import LEASE
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.decide.installations import Installation

logger = logging.getLogger(__name__)


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
        self._renewed = 0.0
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
                async with asyncio.timeout(2):
                    await self._give_back()

    async def _renew(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                left = self._renewed + self._seconds * 2 / 3 - time.monotonic()
                async with asyncio.timeout(left):
                    await asyncio.sleep(self._seconds / 7)
                    await self._try()
        raise LeadershipLost

    async def _try(self) -> bool:
        """Take or renew the Lease; False while another holds it or the API does not answer."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds / 3):
                lease = await self._cluster.get(LEASE, self._namespace, self._name)
                if lease is None:
                    lease = await self._cluster.create(LEASE, self._namespace, self._lease({}))
                    self._recognise(lease)
                elif self._is_free(lease):
                    await self._cluster.replace(LEASE, self._namespace, self._lease(lease))
                    self._recognise(lease)
                else:
                    return False
        except (ClusterError, TimeoutError) as error:
            self._tell(error)
            return False
        self._told = ""
        self._renewed = asked  # others may have seen it as early as that
        return True

    def _tell(self, error: ClusterError | TimeoutError) -> None:
        """Warn of what keeps everybody from leading, once; 409 is another who was faster."""
        slow = f"no answer within {self._seconds / 3:.3g} s"
        what = slow if isinstance(error, TimeoutError) else str(error)
        is_news = what != self._told and getattr(error, "status", 0) != 409
        if is_news:
            self._told = what
        logger.log(
            logging.WARNING if is_news else logging.DEBUG,
            "the Lease %s/%s was not asked for or written, without which nothing is operated: %s",
            *(self._namespace, self._name, what),
        )

    def _recognise(self, lease: dict[str, Any]) -> None:
        # By its place, so that one that is removed and installed again is known as the same.
        if since := lease["metadata"].get("creationTimestamp"):
            self.installation = Installation(self._namespace, since)

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

    def _lease(self, lease: dict[str, Any], holder: str | None = None) -> dict[str, Any]:
        spec = lease.get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": "Lease",
            "metadata": lease.get("metadata") or {"name": self._name},
            "spec": {
                "holderIdentity": self._identity if holder is None else holder,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "acquireTime": spec.get("acquireTime", now) if is_ours else now,
                "renewTime": now,
                "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if is_ours else 1),
            },
        }

    async def _give_back(self) -> None:
        lease = await self._cluster.get(LEASE, self._namespace, self._name)
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            await self._cluster.replace(LEASE, self._namespace, self._lease(lease, holder=""))
