"""A tenant's server that is none, or means harm: what it can cost the operator is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from openworkflow_operator.database import connection
from openworkflow_operator.database.answers import Question, build_id, observation
from openworkflow_operator.database.connection import MOST_BYTES, ConnectOptions, Database
from openworkflow_operator.database.diagnosis import AnswerTooLarge, UnusableAnswer, diagnose
from openworkflow_operator.database.dsn import Dsn, TlsMode

LOCAL = ConnectOptions(allow_loopback=True)
LOGGED_IN, READY = b"R" + struct.pack("!ii", 8, 0), b"Z" + struct.pack("!i", 5) + b"I"
VERSION = b"S" + struct.pack("!i", 24) + b"server_version\x0018.0\x00"
WELCOME = LOGGED_IN + VERSION + READY
#: The beginning of a message that announces two gigabytes.
ENDLESS = b"D" + struct.pack("!i", 2**31 - 1)
SSL_REQUEST = 80877103


class FakeServer:
    """Greets its one client and then sends without an end, or is silent forever."""

    def __init__(self, greeting: bytes, certificate: Path | None, is_silent: bool = False) -> None:
        self._greeting, self._certificate, self._is_silent = greeting, certificate, is_silent
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.sent = 0

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the client did not close its connection"

    def dsn(self, tls: TlsMode) -> Dsn:
        return Dsn(("127.0.0.1",), (self._listening.getsockname()[1],), "d", "u", "p", tls)

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        with client, contextlib.suppress(OSError):
            if self._is_silent:
                if self._greeting:
                    self._packet(client)
                    client.sendall(self._greeting)
                while client.recv(4096):
                    pass
            elif self._packet(client)[:4] == struct.pack("!i", SSL_REQUEST):
                assert self._certificate is not None
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._certificate)
                client.sendall(b"S")
                with context.wrap_socket(client, server_side=True) as secured:
                    self._packet(secured)
                    self._flood(secured)
            else:
                self._flood(client)

    def _flood(self, client: socket.socket) -> None:
        if self._greeting:
            client.sendall(self._greeting)
            client.recv(1)
        client.sendall(ENDLESS)
        while True:
            client.sendall(bytes(2**16))
            self.sent += 2**16

    def _packet(self, client: socket.socket) -> bytes:
        (length,) = struct.unpack("!i", client.recv(4))
        return client.recv(length - 4)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key in one file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-keyout", str(file), "-out", str(file.with_suffix(".c"))]
    subprocess.run(command, check=True, capture_output=True)
    with file.open("a") as whole:
        whole.write(file.with_suffix(".c").read_text())
    return file


@pytest.mark.parametrize("tls", [TlsMode.DISABLE, TlsMode.REQUIRE])
@pytest.mark.parametrize("greeting", [b"", WELCOME], ids=["at the login", "as an answer"])
async def test_a_flood_is_cut(greeting: bytes, tls: TlsMode, certificate: Path) -> None:
    with FakeServer(greeting, certificate) as server:
        with pytest.raises(AnswerTooLarge) as cut:
            await Database.connect(server.dsn(tls), "public", LOCAL)

        assert "QueryFailed" == diagnose(cut.value).reason
        # The rest is in the buffers of both kernels.
        assert server.sent < MOST_BYTES + 16 * 2**20
        await asyncio.sleep(0)  # what was aborted closes in the next turn of the loop


async def test_a_connection_that_asyncpg_forgets_is_closed(certificate: Path) -> None:
    with FakeServer(LOGGED_IN + READY, certificate) as server:
        with pytest.raises(AttributeError) as confused:  # a server without a version
            await Database.connect(server.dsn(TlsMode.REQUIRE), "public", LOCAL)
        assert "QueryFailed" == diagnose(confused.value).reason
        await asyncio.sleep(0)


@pytest.mark.parametrize("greeting", [b"", WELCOME], ids=["at the login", "as an answer"])
async def test_a_server_that_says_nothing_is_given_up(
    greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.2)
    with FakeServer(greeting, None, is_silent=True) as server:
        with pytest.raises(TimeoutError) as given_up:
            await Database.connect(server.dsn(TlsMode.DISABLE), "public", LOCAL)
        assert "TimedOut" == diagnose(given_up.value).reason
        await asyncio.sleep(0)


ANSWER: dict[str, Any] = {
    "due": 1,
    "oldest_due_age": 2.0,
    "waking": 0,
    "next_wake_seconds": None,
    "running": 1,
    "by_pod": '{"a": 1}',
    "mean_running_age": None,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("due", "1"),
        ("due", None),
        ("due", -1),
        ("running", 2**40),
        ("waking", 0.5),
        ("oldest_due_age", float("nan")),
        ("mean_running_age", float("inf")),
        ("next_wake_seconds", "soon"),
        ("by_pod", '{"a": "many"}'),
        ("by_pod", "[]"),
        ("by_pod", "[" * 100_000),
    ],
)
def test_an_answer_of_another_kind_is_no_answer(name: str, value: object) -> None:
    question, now = Question("orders", 10, 10, 20), datetime.now(UTC)
    assert {"a": 1} == observation(ANSWER, question, now, 1).busy

    with pytest.raises(UnusableAnswer) as refused:
        observation(ANSWER | {name: value}, question, now, 1)
    assert "QueryFailed" == diagnose(refused.value).reason


@pytest.mark.parametrize("value", [None, 1, "", "b" * 129, "a\nlog line", "<b>", ["b"]])
def test_a_build_that_no_worker_could_have_named_is_no_answer(value: object) -> None:
    assert "ghcr.io/app:1@sha256" == build_id("ghcr.io/app:1@sha256")

    with pytest.raises(UnusableAnswer):
        build_id(value)
