"""Transactions of callers, and the client for code that blocks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from openworkflow import BackendPostgres, OpenWorkflow, Step, Worker, workflow
from tests.callers import django_connection
from tests.docs.blocks import Page

if TYPE_CHECKING:
    import pytest

    from openworkflow.testing import Environment

PAGE = Page("docs/transactions.md")


@workflow
async def fulfil(item: str, step: Step) -> str:
    step.emit("order", "accepted")
    return f"receipt for a {item}"


async def test_a_run_is_part_of_a_session(ow_env: Environment) -> None:
    engine = create_async_engine(ow_env.url.replace("postgresql:", "postgresql+asyncpg:"))

    class Session(AsyncSession):
        def add(self, instance: object, _warn: bool = True) -> None:
            """The page has a model; there is none here."""

    async with await BackendPostgres.connect(ow_env.url) as backend:
        ow = OpenWorkflow(backend)
        names = await PAGE.block("async with AsyncSession(engine)").run(
            AsyncSession=Session,
            engine=engine,
            order=SimpleNamespace(item="lamp"),
            ow=ow,
            fulfil=fulfil,
        )
        assert (await ow.get_run(names["run"].id)).run.input == "lamp"
    await engine.dispose()


async def test_code_that_blocks(ow_env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"OpenWorkflow": OpenWorkflow, "url": ow_env.url, "fulfil": fulfil}
    async with await BackendPostgres.connect(ow_env.url) as backend, _worker(backend):
        block = PAGE.block("with OpenWorkflow.sync(url) as ow:")
        await asyncio.to_thread(block.execute, names)
    assert capsys.readouterr().out == "receipt for a lamp\norder accepted\n"


async def test_a_connection_of_django(ow_env: Environment) -> None:
    def atomic() -> object:
        connection = django_connection(ow_env.url)
        connection.set_autocommit(False)

        class Atomic:
            """`transaction.atomic()` finds its connection in Django's settings."""

            def __enter__(self) -> None: ...

            def __exit__(self, *_: object) -> None:
                connection.commit()

        with OpenWorkflow.sync(ow_env.url) as ow:
            names = {
                "transaction": SimpleNamespace(atomic=Atomic),
                "connection": connection,
                "fulfil": fulfil,
                "ow": ow,
            }
            PAGE.block("with transaction.atomic():").execute(names)
            connection.close()
            return names["run"].run().input

    assert await asyncio.to_thread(atomic) == "lamp"


def _worker(backend: BackendPostgres) -> Worker:
    return OpenWorkflow(backend).new_worker(workflows=[fulfil])
