"""Keeps the store's picture of one kind: a list, then a watch, again and again.

Only objects with the owner label are asked for, so that a large cluster costs no memory here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.cluster.client import Cluster, ClusterError
from openworkflow_operator.cluster.store import Store

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
#: While no API server answers: it comes back by itself, and fleets stand still until it is found.
LONGEST_OUTAGE_PAUSE_SECONDS: Final = 5.0
#: A watch that lasted so long was one; the next fault begins with the shortest pause again.
SHORTEST_WATCH_SECONDS: Final = 5.0
#: How often to look whether a kind that the cluster does not serve has been installed.
ABSENT_PAUSE_SECONDS: Final = 60.0


class Informer:
    """One kind in one namespace, or in all of them (None)."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        kind: Kind,
        namespace: str | None,
        selector: str | None,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster, self._store = cluster, store
        self.kind = kind
        self._namespace, self._selector = namespace, selector
        self._failures = 0
        self._is_away, self._on_return = False, on_return
        self.listed = asyncio.Event()
        """Set once the first list is in the store, or the kind is known to be absent."""
        self.settled = asyncio.Event()
        """Set once it is listed, or there is no hope that it will be soon."""
        self.is_served = False
        """Whether the API server knows the kind."""

    async def run(self, watch: bool = True) -> None:
        """Never ends; failures are retried with growing pauses. Without `watch`, lists once."""
        while watch or not self.listed.is_set():
            try:
                version = await self._begin()
                if self._is_away:  # what was refused meanwhile need not wait for its turn
                    self._is_away = False
                    self._on_return()
                if watch:
                    await self._watch(version)
            except ClusterError as error:
                await self._recover(error)
            except Exception:
                # One object that nobody thought of must not end what all others rely on.
                logger.exception("a fault of the operator itself, in the watch of %s", self.kind)
                await self._pause()

    async def _begin(self) -> str:
        try:
            return await self.relist()
        except ClusterError:
            self._store.lose(self.kind, self._namespace)
            raise

    async def relist(self) -> str:
        """Take in a full list; returns the version from which to watch."""
        items, version = await self._cluster.list(self.kind, self._namespace, self._selector)
        self._store.replace(self.kind, self._namespace, items, version)
        self.is_served = True
        self.listed.set()
        self.settled.set()
        return version

    async def _watch(self, version: str) -> None:
        while True:
            began = time.monotonic()
            stream = self._cluster.watch(self.kind, self._namespace, self._selector, version)
            async for change, item in stream:
                version = item["metadata"]["resourceVersion"]
                if change == "DELETED":
                    self._store.remove(self.kind, item)
                elif change != "BOOKMARK":
                    self._store.put(self.kind, item)
            if time.monotonic() - began >= SHORTEST_WATCH_SECONDS:
                self._failures = 0
            else:  # a server that ends every watch at once must not be asked without a pause
                await self._pause()

    async def _recover(self, error: ClusterError) -> None:
        is_missing = error.status == 404 and not self.kind.is_built_in
        if is_missing and await self._cluster.is_there():
            self.is_served = False
            self._store.replace(self.kind, self._namespace, [], "")
            self.listed.set()
            self.settled.set()
            await asyncio.sleep(ABSENT_PAUSE_SECONDS)
            return
        if error.status == 403:
            self.settled.set()  # the other namespaces must not wait for somebody's Role
        if error.status != 410:  # it fell too far behind; a new list is all it takes
            logger.warning("%s cannot be watched: %s", self.kind.plural, error)
        is_away = error.status in (0, 404) or error.status >= 500
        self._is_away |= is_away  # one that comes back may refuse at first
        await self._pause(LONGEST_OUTAGE_PAUSE_SECONDS if is_away else LONGEST_PAUSE_SECONDS)

    async def _pause(self, longest: float = LONGEST_PAUSE_SECONDS) -> None:
        """Wait longer each time, until a watch has lasted."""
        pause = min(longest, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
