"""Servers that are not as welcoming as the tests' own: passwords, TLS, a standby, a pooler."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers import eventually_sync
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres, embedded_programs
from tests.ports import free_port

PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"

_RULES = """
host      all          careful,owner 127.0.0.1/32 scram-sha-256
hostnossl all          secret   127.0.0.1/32 reject
hostssl   all          secret   127.0.0.1/32 trust
host      all,replication postgres 127.0.0.1/32 trust
"""


def programs_with_tls() -> Path | None:
    """A PostgreSQL of this machine that was built with TLS; the embedded one was not."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def has_pgbouncer() -> bool:
    """Whether the pooler is here (make test-programs)."""
    return Path(PGBOUNCER).exists()


@dataclass(slots=True)
class Standby(LocalPostgres):
    """A server that follows another one and is read-only."""

    primary: str = ""

    def _initialise(self) -> None:
        data = str(self.root / "data")
        self.run("pg_basebackup", "-D", data, "-d", self.primary, "-R", "-c", "fast")


@contextlib.contextmanager
def guarded_server() -> Iterator[LocalPostgres]:
    """A server that lets in `careful` and `owner` by password and, with TLS, `secret`.

    The roles are for the tests to make.
    """
    folder = Path(tempfile.mkdtemp(prefix="owpg-guard-"))
    folder.chmod(0o755)
    rules = folder / "pg_hba.conf"
    rules.write_text(_RULES if programs_with_tls() else _RULES.replace("hostssl", "#"))
    settings = {**FAST_AND_UNSAFE, "hba_file": str(rules)}
    if programs_with_tls():
        settings |= _certificate(folder)
    programs = programs_with_tls() or embedded_programs()
    library = None if programs_with_tls() else programs.parent / "lib"
    server = LocalPostgres(programs, lib_dir=library, settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def standby_of(primary: LocalPostgres) -> Iterator[LocalPostgres]:
    """A hot standby of the server."""
    standby = Standby(primary.bin_dir, lib_dir=primary.lib_dir, primary=primary.url())
    try:
        yield standby.start()
    finally:
        standby.stop()


@contextlib.contextmanager
def pooler_of(url: str, folder: Path, pool_size: int = 3) -> Iterator[str]:
    """PgBouncer in transaction mode, as it comes, in front of the database."""
    split = urlsplit(url)
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"* = host={split.hostname} port={split.port} user={split.username} password=unused\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n"
    )
    folder.chmod(0o755)
    settings.chmod(0o644)
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    process = subprocess.Popen([PGBOUNCER, "-q", *as_nobody, str(settings)], stderr=-3, stdout=-3)
    try:
        eventually_sync(lambda: _answers(port))
        yield f"postgresql://{split.username}@127.0.0.1:{port}{split.path}"
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _certificate(folder: Path) -> dict[str, str]:
    """Settings for TLS with a certificate for 127.0.0.1 that signed itself."""
    certificate, key = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=guarded", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    if os.geteuid() == 0:
        shutil.chown(key, "nobody")
    key.chmod(0o600)
    return {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
