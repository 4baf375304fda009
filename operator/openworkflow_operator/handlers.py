"""The watch of WorkflowNamespaces by kopf.

Only its low-level event handler is used: kopf then writes nothing into the resources, no finalizer
and no annotation. It swallows what a handler raises, so the handler may do no more than pass on.

kopf has a thread and an event loop to itself: when it stops it cancels every task of its loop, and
on the main thread it takes the signals too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import kopf

from openworkflow_operator.api.kinds import WORKFLOW_NAMESPACE
from openworkflow_operator.api.names import GROUP, PLURAL, VERSION
from openworkflow_operator.process import Operator

logger = logging.getLogger(__name__)

#: A watch that lasted so long was one; after shorter ones the pauses grow.
WATCHED_SECONDS: Final = 60.0
LONGEST_PAUSE_SECONDS: Final = 30.0

Login = Callable[..., kopf.ConnectionInfo | None]


def settings_of(operator: Operator) -> kopf.OperatorSettings:
    """kopf as it is used here: no peering (a Lease decides), no Events, no scan of the cluster."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 240
    # An API server that is back is found within seconds; by default the eighth try is the last.
    settings.networking.error_backoffs = (1, 2, 3, *[5] * 1000)
    settings.watching.reconnect_backoff = 1.0  # for a server that ends every watch at once
    return settings


def registry_of(login: Login, pass_on: Callable[[Any], object]) -> kopf.OperatorRegistry:
    """The handlers; a registry of its own, so that two operators fit into one process."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def connect(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return login(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    def heard(event: Any, **_: Any) -> None:
        pass_on(event)

    return registry


def watched_by_kopf(
    login: Login,
) -> Callable[[Operator], contextlib.AbstractAsyncContextManager[None]]:
    """A watch for `Operator.run`. What ends kopf, such as a proxy's page, only makes it begin anew.

    From then on the operator watches too: one object that kopf cannot read would hide all others.
    """

    @contextlib.asynccontextmanager
    async def watch(operator: Operator) -> AsyncIterator[None]:
        loop, stop = asyncio.get_running_loop(), threading.Event()
        flags = [threading.Event()]

        def pass_on(event: Any) -> None:
            loop.call_soon_threadsafe(_take_in, operator, event["type"], dict(event["object"]))

        def run() -> None:
            failures = 0
            while not stop.is_set():
                began = time.monotonic()
                flags[0] = threading.Event()
                try:
                    asyncio.run(_run_kopf(operator, registry_of(login, pass_on), flags[0]))
                except Exception as error:
                    logger.warning("the watch ended, and begins anew: %s", type(error).__name__)
                    # It may end at the same object again: kopf reads none that is nested deeply.
                    loop.call_soon_threadsafe(operator.watch_itself)
                failures = failures + 1 if time.monotonic() - began < WATCHED_SECONDS else 0
                stop.wait(min(LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, 10) - 0.5))

        thread = threading.Thread(target=run, name="kopf", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            flags[0].set()
            await asyncio.to_thread(thread.join, 5)

    return watch


async def _run_kopf(
    operator: Operator, registry: kopf.OperatorRegistry, stop: threading.Event
) -> None:
    namespaces = operator.settings.namespaces
    try:
        await kopf.operator(
            registry=registry,
            settings=settings_of(operator),
            # Else kopf looks up the user's name, and a container's has none.
            identity=operator.settings.identity,  # type: ignore[arg-type]
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            stop_flag=stop,
        )
    except asyncio.CancelledError:
        logger.debug("kopf was stopped")
    finally:
        stop.set()  # kopf waits for it in a thread, without which its loop cannot close


def _take_in(operator: Operator, change: str | None, item: dict[str, Any]) -> None:
    if change == "DELETED":
        operator.store.remove(WORKFLOW_NAMESPACE, item)
    else:
        operator.store.put(WORKFLOW_NAMESPACE, item)
