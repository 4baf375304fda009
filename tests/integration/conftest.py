"""What several tests need: of the operator's look at a database, and of races for a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse
from tests.racing import Mover
from tests.stepping import Stepper

INTERNAL = ("internal error", "nothing could be recorded of a run")
"""What the worker says of mistakes of its own."""


@pytest.fixture(autouse=True)
def _no_internal_errors(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """A defect of ours hands a run back, and the test may never know: unless it asked for one."""
    yield
    if request.node.get_closest_marker("internal_errors") is not None:
        return
    for when in ("setup", "call"):
        for each in caplog.get_records(when):
            said = each.getMessage()
            assert not any(text in said for text in INTERNAL), f"{said}\n{each.exc_text or ''}"


@pytest.fixture
async def movers(database_url: str) -> AsyncIterator[list[Mover]]:
    """Three who race for runs."""
    movers = [await Mover.connect(database_url, number) for number in range(3)]
    yield movers
    for mover in movers:
        await mover.close()


@pytest.fixture
async def stepper(database_url: str, movers: list[Mover]) -> AsyncIterator[Stepper]:
    """Lets the movers go on in any order."""
    stepper = Stepper(database_url, [mover.hold.id for mover in movers])
    await stepper.open()
    yield stepper
    await stepper.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The operator's connection to the test's own database."""
    options = ConnectOptions(allow_loopback=True)
    database = await Database.connect(parse(database_url), "public", options)
    yield database
    database.terminate()
