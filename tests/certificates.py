"""Certificates of every kind, and a server that speaks TLS with one of them; needs openssl."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from tests.guarded_postgres import programs_with_tls
from tests.local_postgres import FAST_AND_UNSAFE, LocalPostgres

_RULES = """
hostssl   mutual all 127.0.0.1/32 trust clientcert=verify-ca
hostnossl mutual all 127.0.0.1/32 reject
host      all    all 127.0.0.1/32 trust
"""


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs certificates, in a folder of its own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """A new one, which signs itself."""
        folder.mkdir()
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={folder.name}"),
            *("-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")),
        )
        return cls(folder)

    @property
    def file(self) -> Path:
        """What who trusts it names as `sslrootcert`."""
        return self.folder / "ca.crt"

    def sign(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """A certificate for this name, and its key; `expired` a day ago."""
        certificate, key, request = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}\n")
        for each in ("index.txt", "index.txt.attr"):
            (self.folder / each).write_text("")
        settings = self.folder / "ca.cnf"
        settings.write_text(
            "[ca]\ndefault_ca = own\n[own]\ndefault_md = sha256\npolicy = any\n"
            f"database = {self.folder}/index.txt\nnew_certs_dir = {self.folder}\n"
            "rand_serial = yes\n[any]\ncommonName = supplied\n"
        )
        begin = datetime.now(UTC) - timedelta(days=3)
        end = begin + timedelta(days=2 if expired else 9)
        _openssl(
            *("ca", "-batch", "-notext", "-config", str(settings), "-in", str(request)),
            *("-cert", str(self.file), "-keyfile", str(self.folder / "ca.key")),
            *("-extfile", str(extensions), "-out", str(certificate)),
            *("-startdate", f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}"),
        )
        return certificate, key


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A server with TLS whose certificate can be exchanged while it is at work.

    Who connects to the database `mutual` has to show a certificate of `clients` of his own.
    """

    postgres: LocalPostgres
    folder: Path

    def use(self, certificate: Path, key: Path) -> None:
        """Show this certificate to whoever connects from now on, once the server has read it."""
        own = self.folder / "server.key"
        shutil.copy(certificate, self.folder / "server.crt")
        shutil.copy(key, own)
        if os.geteuid() == 0:
            shutil.chown(own, "nobody")
        own.chmod(0o600)

    async def rotate(self, certificate: Path, key: Path) -> None:
        """Show this certificate from now on, and end all connections."""
        sql = await asyncpg.connect(self.postgres.url(), ssl=False)
        before = await sql.fetchval("select pg_conf_load_time()")
        self.use(certificate, key)
        await sql.execute("select pg_reload_conf()")
        while before == await sql.fetchval("select pg_conf_load_time()"):
            pass
        await sql.close()
        await self.end_connections()

    async def end_connections(self) -> None:
        """End all connections of others."""
        sql = await asyncpg.connect(self.postgres.url(), ssl=False)
        await sql.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        await sql.close()

    def url(self, database: str, host: str, **query: object) -> str:
        """The URL of one of its databases under this name."""
        options = "&".join(f"{name}={value}" for name, value in query.items())
        return f"postgresql://postgres@{host}:{self.postgres.port}/{database}?{options}"


@contextlib.contextmanager
def tls_server(certificate: Path, key: Path, clients: Authority) -> Iterator[TlsServer]:
    """A server that shows this certificate."""
    programs = programs_with_tls()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="owpg-tls-"))
    folder.chmod(0o755)
    (folder / "pg_hba.conf").write_text(_RULES)
    shutil.copy(clients.file, folder / "clients.crt")
    settings = {
        **FAST_AND_UNSAFE,
        "hba_file": str(folder / "pg_hba.conf"),
        "ssl": "on",
        "ssl_cert_file": str(folder / "server.crt"),
        "ssl_key_file": str(folder / "server.key"),
        "ssl_ca_file": str(folder / "clients.crt"),
    }
    server = TlsServer(LocalPostgres(programs, settings=settings), folder)
    server.use(certificate, key)
    try:
        server.postgres.start()
        yield server
    finally:
        server.postgres.stop()
        shutil.rmtree(folder)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
