"""The PostgreSQL that pip brings: nobody else of the machine gets at it."""

import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.embedded import LONGEST_SOCKET_PATH, EmbeddedPostgres


def folder_of_length(length: int, root: Path) -> Path:
    """A folder whose socket has a path of so many bytes."""
    return root / ("d" * (length - len(bytes(root / "x")) + 1 - len("/.s.PGSQL.5432")))


def test_a_path_too_long_for_a_socket_is_refused_and_nothing_is_started(tmp_path: Path) -> None:
    """Its socket went to a shared folder, mode 0777: everybody of the machine was superuser."""
    data_dir = folder_of_length(LONGEST_SOCKET_PATH + 1, tmp_path)
    server = EmbeddedPostgres(data_dir)

    try:
        with pytest.raises(ConfigurationError, match=r"1 bytes too long .* --data"):
            server.start()
    finally:
        server.stop()
    assert not data_dir.exists()


def test_the_socket_is_in_a_folder_that_is_the_server_s_alone(tmp_path: Path) -> None:
    data_dir = folder_of_length(LONGEST_SOCKET_PATH, tmp_path)

    with EmbeddedPostgres(data_dir) as url:
        assert [str(data_dir)] == parse_qs(urlsplit(url).query)["host"]
        assert 0o700 == stat.S_IMODE(data_dir.stat().st_mode)
        assert (data_dir / ".s.PGSQL.5432").is_socket()
        assert EmbeddedPostgres(data_dir).is_at(url)
    assert not EmbeddedPostgres(data_dir).is_at("postgresql://me@localhost/shop")
    assert not EmbeddedPostgres(tmp_path).is_at(url)
