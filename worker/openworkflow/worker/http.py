"""`/metrics`, `/livez` and `/readyz` on one port, from a thread of its own.

A probe must be answered while user code blocks the event loop, hence the thread.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from openworkflow.core.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

Probe = Callable[[], tuple[bool, str]]
CLIENT_SECONDS = 10
"""A client that is slower than this is let go."""


class HealthServer:
    """Serves a registry and two probes; a probe gives its answer and the reason."""

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        *,
        live: Probe,
        ready: Probe,
        host: str = "0.0.0.0",  # noqa: S104 - Prometheus and the kubelet come from elsewhere
    ) -> None:
        self._address, self._probes = (host, port), {"/livez": live, "/readyz": ready}
        self._metrics: Any = make_wsgi_app(registry)
        self._server: WSGIServer | None = None

    def start(self) -> int:
        """Listen, and return the port (a free one if 0 was asked for).

        Raises ConfigurationError when the port cannot be had.
        """
        host, port = self._address
        try:
            self._server = make_server(host, port, self._answer, _Server, _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} for metrics and health ({error.strerror}); stop "
                "what uses the port, or set OPENWORKFLOW_PORT to another one, or to 0 for any"
            ) from None
        threading.Thread(
            target=self._server.serve_forever, name="openworkflow http", daemon=True
        ).start()
        return self._server.server_port

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: "WSGIEnvironment", respond: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, respond)
            return answer
        if path not in self._probes:
            respond("404 Not Found", [("Content-Type", "text/plain")])
            return [b"see /metrics, /livez, /readyz\n"]
        good, reason = self._probes[path]()
        respond("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [f"{reason}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
