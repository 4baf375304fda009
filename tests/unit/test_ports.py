"""A port for a server of a test is none that a connection of another test may get."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from tests import ports
from tests.ports import free_port


def test_a_port_is_none_that_the_kernel_gives_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "range").write_text("20000\t60999\n")
    monkeypatch.setattr(ports, "_GIVEN", tmp_path / "range")

    assert all(10_000 <= free_port() < 20_000 for _ in range(100))


def test_a_port_that_somebody_listens_at_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken := free_port()))
        server.listen()
        offers = iter([taken - 10_000] * 3)
        monkeypatch.setattr(secrets, "randbelow", lambda below: next(offers, below - 1))

        assert taken != free_port()
        assert next(offers, None) is None
