"""The watch of WorkflowNamespaces by kopf.

Only its low-level event handler is used: kopf then writes nothing into the resources, no finalizer
and no annotation. It swallows what a handler raises, so the handler may do no more than pass on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import kopf

from openworkflow_operator.kinds import WORKFLOW_NAMESPACE
from openworkflow_operator.names import GROUP, PLURAL, VERSION
from openworkflow_operator.process import Operator

logger = logging.getLogger(__name__)

Login = Callable[..., kopf.ConnectionInfo | None]


def settings_of(operator: Operator) -> kopf.OperatorSettings:
    """kopf as it is used here: no peering (a Lease decides), no Events, no scan of the cluster."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 240
    return settings


def registry_of(operator: Operator, login: Login) -> kopf.OperatorRegistry:
    """The handlers; a registry of its own, so that two operators fit into one process."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def connect(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return login(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    def heard(event: Any, **_: Any) -> None:
        item = dict(event["object"])
        if event["type"] == "DELETED":
            operator.store.remove(WORKFLOW_NAMESPACE, item)
        else:
            operator.store.put(WORKFLOW_NAMESPACE, item)

    return registry


def watched_by_kopf(
    login: Login, on_end: Callable[[], object]
) -> Callable[[Operator], contextlib.AbstractAsyncContextManager[None]]:
    """A watch for `Operator.run`. kopf takes SIGTERM for itself; `on_end` hears that it ended."""

    @contextlib.asynccontextmanager
    async def watch(operator: Operator) -> AsyncIterator[None]:
        namespaces = operator.settings.namespaces
        stop = asyncio.Event()
        task = asyncio.ensure_future(
            kopf.operator(
                registry=registry_of(operator, login),
                settings=settings_of(operator),
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop,
            )
        )
        task.add_done_callback(lambda _: on_end())
        try:
            yield
        finally:
            stop.set()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(task, 5)

    return watch
