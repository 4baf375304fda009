"""Servers that a tenant may point the operator at, each with an evil of its own."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from openworkflow_operator.database.dsn import Dsn, TlsMode

Behaviour = Callable[[socket.socket, threading.Event], None]


def message(kind: bytes, body: bytes) -> bytes:
    """A message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


LOGGED_IN, READY = message(b"R", struct.pack("!i", 0)), message(b"Z", b"I")
VERSION = message(b"S", b"server_version\x0018.0\x00")
WELCOME = LOGGED_IN + VERSION + READY
SASL = message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\x00\x00")
#: The beginning of a message that announces two gigabytes.
ENDLESS = b"D" + struct.pack("!i", 2**31 - 1)


class HostileServer:
    """Lets each of its clients have the behaviour, in a thread of its own."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour, self._stop = behaviour, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.clients = 0

    def __enter__(self) -> HostileServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listening.close()

    def dsn(self, host: str = "127.0.0.1", tls: TlsMode = TlsMode.DISABLE) -> Dsn:
        """Its URL."""
        return Dsn((host,), (self.port,), "d", "u", "p", tls)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.clients += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, struct.error, IndexError):
            self._behaviour(client, self._stop)


def silent(client: socket.socket, stop: threading.Event) -> None:
    """Takes everything and answers nothing."""
    while client.recv(4096) and not stop.is_set():
        pass


def slow(client: socket.socket, stop: threading.Event) -> None:
    """Sends a byte of the login every tenth of a second."""
    for place in range(len(WELCOME)):
        if stop.wait(0.1):
            return
        client.sendall(WELCOME[place : place + 1])
    silent(client, stop)


def flooding(client: socket.socket, stop: threading.Event) -> None:
    """Sends without an end, as an answer."""
    client.recv(4096)
    client.sendall(WELCOME)
    client.recv(1)
    client.sendall(ENDLESS)
    while not stop.is_set():
        client.sendall(bytes(2**16))


def hanging_up(client: socket.socket, stop: threading.Event) -> None:
    """Logs the client in and closes the connection."""
    client.recv(4096)
    client.sendall(WELCOME)


def notifying(client: socket.socket, stop: threading.Event) -> None:
    """Logs the client in, and sends notifications forever."""
    client.recv(4096)
    client.sendall(WELCOME)
    body = struct.pack("!i", 1) + b"openworkflow_work_0123456789abcdef\x00\x00"
    while not stop.is_set():
        client.sendall(message(b"A", body) * 1000)


def secured(certificate: Path) -> Behaviour:
    """Makes TLS with this certificate, and hangs up."""

    def behave(client: socket.socket, stop: threading.Event) -> None:
        client.recv(8)
        client.sendall(b"S")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with context.wrap_socket(client, server_side=True) as inside:
            inside.recv(4096)

    return behave


def laborious(iterations: int, times: int = 1, piece: int = 2**20) -> Behaviour:
    """Asks for so many rounds of SCRAM, so often, and sends it in pieces of so many bytes."""

    def behave(client: socket.socket, stop: threading.Event) -> None:
        client.recv(4096)
        client.sendall(SASL)
        nonce = client.recv(4096).partition(b"r=")[2].partition(b"\x00")[0]
        salt = base64.b64encode(b"0123456789abcdef")
        first = b"r=" + nonce + b"x,s=" + salt + b",i=" + str(iterations).encode()
        asked = message(b"R", struct.pack("!i", 11) + first) * times
        for place in range(0, len(asked), piece):
            client.sendall(asked[place : place + piece])
            if piece < len(asked):
                time.sleep(0.001)  # so that they arrive as pieces
        silent(client, stop)

    return behave
