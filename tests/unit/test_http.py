"""Metrics and probes over HTTP: right answers, and none that waits for somebody else."""

from __future__ import annotations

import gc
import http.client
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

import openworkflow.worker.http
from openworkflow.core.errors import ConfigurationError
from openworkflow.telemetry.metrics import Metrics
from openworkflow.worker.http import MOST_CLIENTS, HealthServer
from tests.helpers import eventually_sync

Answer = tuple[int, str, str]
Ask = Callable[..., Answer]


class Probes:
    """What the worker would say."""

    live = (True, "event loop last seen 0.1 s ago")
    ready = (True, "ready")


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
def port(probes: Probes) -> Iterator[int]:
    metrics = Metrics("production")
    server = HealthServer(0, metrics.registry, live=lambda: probes.live, ready=lambda: probes.ready)
    yield server.start()
    server.stop()


@pytest.fixture
def ask(port: int) -> Ask:
    def get(path: str, method: str = "GET", accept: str = "*/*", host: str = "127.0.0.1") -> Answer:
        with closing(http.client.HTTPConnection(host, port, timeout=60)) as connection:
            connection.request(method, path, headers={"Accept": accept})
            response = connection.getresponse()
            kind = response.headers["Content-Type"]
            return response.status, kind, response.read().decode()

    return get


def test_metrics_are_those_of_the_registry(ask: Ask) -> None:
    status, kind, body = ask("/metrics?name=ignored")

    assert 200 == status
    assert kind.startswith("text/plain; version=")
    assert 'openworkflow_worker_slots{namespace_id="production"} 0.0' in body


def test_metrics_come_as_openmetrics_on_request(ask: Ask) -> None:
    status, kind, body = ask("/metrics", accept="application/openmetrics-text;version=1.0.0,*/*")

    assert 200 == status
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize("name", ["live", "ready"])
def test_probes_answer_with_the_reason(ask: Ask, probes: Probes, name: str) -> None:
    path = {"live": "/livez", "ready": "/readyz"}[name]
    assert 200 == ask(path)[0]

    setattr(probes, name, (False, "draining"))

    assert (503, "draining\n") == (ask(path)[0], ask(path)[2])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)],
)
def test_what_is_not_there_is_said_to_be_not_there(
    ask: Ask, method: str, path: str, status: int
) -> None:
    assert status == ask(path, method)[0]


def test_head_has_no_body(ask: Ask) -> None:
    assert (200, "") == (ask("/livez", "HEAD")[0], ask("/livez", "HEAD")[2])


def test_a_probe_that_raises_is_a_failed_probe() -> None:
    def broken() -> NoReturn:
        raise RuntimeError("no")

    server = HealthServer(0, CollectorRegistry(), live=broken, ready=lambda: (True, ""))
    with closing(http.client.HTTPConnection("127.0.0.1", server.start(), timeout=60)) as client:
        client.request("GET", "/livez")
        assert 500 == client.getresponse().status
    server.stop()


def test_clients_that_say_nothing_hold_up_nobody(ask: Ask, port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    silent[0].sendall(b"GET /livez HTTP/1.1\r\nHost")
    before = threading.active_count()

    assert 200 == ask("/livez")[0]

    assert threading.active_count() <= before
    for client in silent:
        client.close()


def test_a_crowd_of_silent_clients_takes_few_files_and_a_probe_is_answered(
    ask: Ask, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four hundred took every file descriptor of the worker."""
    monkeypatch.setattr(openworkflow.worker.http, "CLIENT_SECONDS", 600.0)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=25) for _ in range(400)]

    assert 200 == ask("/livez")[0]
    for client in silent:
        client.setblocking(False)
    eventually_sync(lambda: sum(map(_is_open, silent)) <= MOST_CLIENTS)
    assert all(map(_is_open, silent[-10:]))
    for client in silent:
        client.close()


def _is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a_slow_client_is_let_go(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The time is for the whole request: a byte now and then does not buy more of it."""
    monkeypatch.setattr(openworkflow.worker.http, "CLIENT_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=25) as client:
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012 - which of the writes fails is not ours to say
            while time.monotonic() - started < 25:
                client.sendall(b"x")
                time.sleep(0.02)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"hello\r\n\r\n", b"GET /livez\r\n\r\n"])
def test_what_is_no_http_is_refused(port: int, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=25) as client:
        client.sendall(request_)
        assert client.recv(1000).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_request_without_end_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=25) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 17_000 + b"\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 431 ")


def test_a_port_in_use_is_an_error_that_says_so(port: int) -> None:
    second = HealthServer(
        port, CollectorRegistry(), live=lambda: (True, ""), ready=lambda: (True, "")
    )

    with pytest.raises(ConfigurationError) as raised:
        second.start()

    assert f"cannot listen on *:{port}" in str(raised.value)
    assert "OPENWORKFLOW_PORT" in str(raised.value)
    second.stop()


def test_a_host_that_is_not_ours_is_an_error_that_names_it() -> None:
    server = HealthServer(
        0, CollectorRegistry(), live=lambda: (True, ""), ready=lambda: (True, ""), host="192.0.2.1"
    )

    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:0"):
        server.start()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_is_served_too(ask: Ask) -> None:
    assert 200 == ask("/livez", host="::1")[0]


def test_listening_needs_no_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """http.server looks up the host's name, which may take many seconds in a new pod."""

    def slow(*_: object) -> NoReturn:
        raise AssertionError("looked up a name")

    monkeypatch.setattr(socket, "getfqdn", slow)
    monkeypatch.setattr(socket, "gethostbyaddr", slow)
    server = HealthServer(0, CollectorRegistry(), live=lambda: (True, ""), ready=lambda: (True, ""))

    assert server.start() > 0
    server.stop()


def test_a_client_that_comes_as_the_server_stops_leaves_nothing_open() -> None:
    for _ in range(50):
        server = HealthServer(
            0, CollectorRegistry(), live=lambda: (True, ""), ready=lambda: (True, "")
        )
        port = server.start()
        with socket.create_connection(("127.0.0.1", port)):
            server.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_after_stop_the_port_is_free_and_the_thread_gone() -> None:
    server = HealthServer(
        0, CollectorRegistry(), live=lambda: (True, ""), ready=lambda: (True, ""), host="127.0.0.1"
    )
    port = server.start()
    with socket.create_connection(("127.0.0.1", port)):
        server.stop()
    server.stop()

    eventually_sync(lambda: "openworkflow http" not in {t.name for t in threading.enumerate()})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_second_worker_of_a_machine_takes_another_port_and_says_which(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless its port was chosen: then what scrapes it would find the other worker."""
    ready = (True, "ready")
    server = HealthServer(
        port, CollectorRegistry(), live=lambda: ready, ready=lambda: ready, elsewhere=True
    )
    other = server.start()
    try:
        assert other not in (0, port)
        assert f"port {port} is taken" in caplog.text
        assert f"on port {other}" in caplog.text
    finally:
        server.stop()
