"""`openworkflow-operator`: runs until SIGTERM. Everything is set by environment variables.

Exit codes: 0 stopped, 1 the Lease was lost (restart it), 2 a setting cannot be used,
3 there is no way to the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
import sys
from typing import Any, Final

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from openworkflow_operator.cluster.client import connected
from openworkflow_operator.cluster.leadership import LeadershipLost
from openworkflow_operator.handlers import watched_by_kopf
from openworkflow_operator.process import Operator
from openworkflow_operator.settings import InvalidSetting, Settings

STOPPED: Final = 0
LOST: Final = 1
UNUSABLE_SETTING: Final = 2
NO_CLUSTER: Final = 3

logger = logging.getLogger("openworkflow_operator")


def main() -> int:
    """Entry point of the command."""
    try:
        settings = Settings.from_env()
    except InvalidSetting as error:
        sys.stderr.write(f"error: {error}\n")
        return UNUSABLE_SETTING
    _log(settings.log_level)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    try:
        configuration = await _configuration()
    except config.ConfigException as error:
        sys.stderr.write(f"error: no cluster to connect to: {error}\n")
        return NO_CLUSTER
    async with connected(configuration) as client:

        def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
            return _login(configuration.host, **kwargs)

        operator = Operator(client, settings)
        running = asyncio.create_task(operator.run(watched_by_kopf(login)))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            logger.info("stopped")
        except BaseExceptionGroup as group:
            if group.subgroup(LeadershipLost) is None:
                raise
            logger.warning("the lease was lost")
            return LOST
        return STOPPED


async def _configuration() -> Configuration:
    """In a pod its service account, else the current context of the kubeconfig."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def _login(host: str, **kwargs: Any) -> kopf.ConnectionInfo | None:
    in_pod = kopf.login_with_service_account(**kwargs)
    if in_pod is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # kopf's address is a name; where the cluster's DNS is down, the rest of the operator works.
    return dataclasses.replace(in_pod, server=host)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "ts": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _log(level: str) -> None:
    handler = logging.StreamHandler()
    with contextlib.suppress(ValueError):
        if not sys.stderr.isatty():
            handler.setFormatter(_Json())
    logging.basicConfig(level=level, handlers=[handler])
    # kopf and asyncio say little that concerns whoever runs this.
    logging.getLogger("kopf").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
