"""`async with` for a backend, a client and a worker."""

from __future__ import annotations

import pytest

from openworkflow import BackendPostgres, ConfigurationError, OpenWorkflow, Step, workflow


@workflow
async def hello(input: str, step: Step) -> str:
    return f"hello, {input}"


async def test_each_is_stopped_at_the_end(database_url: str) -> None:
    async with await BackendPostgres.connect(database_url) as backend:
        async with OpenWorkflow(backend) as ow, ow.new_worker(workflows=[hello]) as worker:
            run = await ow.run_workflow(hello, "ada")
            assert await run.result(timeout="20s") == "hello, ada"
        assert worker.ready() == (False, "stopped")
    with pytest.raises(ConfigurationError, match="stopped"):
        await ow.run_workflow(hello, "bob")


async def test_a_worker_stops_where_the_block_fails(database_url: str) -> None:
    async with await BackendPostgres.connect(database_url) as backend:
        worker = OpenWorkflow(backend).new_worker(workflows=[hello])

        async def fails() -> None:
            async with worker:
                raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await fails()
        assert worker.ready() == (False, "stopped")
