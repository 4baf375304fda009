"""PgBouncer in transaction mode, where this machine has one: `make test-programs`."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import eventually
from tests.ports import free_port
from tools.test_programs import BIN

SETTINGS = """
[databases]
* = host=127.0.0.1 port={upstream_port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 10
server_login_retry = 1
server_idle_timeout = 3
ignore_startup_parameters = jit,plan_cache_mode,enable_seqscan,enable_hashjoin,enable_mergejoin,\
enable_bitmapscan
"""


def program() -> str | None:
    """Where PgBouncer is, or None."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), str(BIN)]))


@dataclass
class Pooler:
    """One that leads to `upstream_port`; its settings are in `folder`."""

    upstream_port: int
    folder: Path
    port: int = 0
    _process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        """Start it, on the port that it had before."""
        self.port = self.port or free_port()
        settings = self.folder / "pgbouncer.ini"
        text = SETTINGS.format(upstream_port=self.upstream_port, port=self.port)
        settings.write_text(text.replace("\\\n", ""))
        settings.chmod(0o644)
        self.folder.chmod(0o755)
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
        found = program()
        assert found is not None
        self._process = await asyncio.create_subprocess_exec(
            found,
            *["-q", *as_nobody, str(settings)],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await eventually(self._answers, 60)

    async def stop(self) -> None:
        """Kill it: connections break in the middle of what they carry."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
