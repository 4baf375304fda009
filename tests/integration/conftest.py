"""What several tests of the operator's look at a database need."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The operator's connection to the test's own database."""
    options = ConnectOptions(allow_loopback=True)
    database = await Database.connect(parse(database_url), "public", options)
    yield database
    database.terminate()
