"""The adapter for the public harness, as the harness runs it: a process, its lines, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import Any

import asyncpg

REQUIRED = {"claim_p50_ms", "claim_p95_ms", "claim_p99_ms", "enqueue_rate", "completion_rate"}
REQUIRED |= {"queue_depth", "running_depth", "total_backlog", "producer_target_rate"}


async def test_it_tells_every_metric_survives_lost_connections_and_ends_when_told(
    database_url: str, sql: asyncpg.Connection[Any]
) -> None:
    env = {**os.environ, "DATABASE_URL": database_url, "SAMPLE_EVERY_S": "0.5"}
    env |= {"PRODUCER_RATE": "200", "WORKER_COUNT": "20", "PRODUCER_BATCH_MS": "10"}
    command = (sys.executable, "-m", "benchmarks.harness.main")
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE)
    assert process.stdout is not None
    try:
        first = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ("descriptor", "openworkflow") == (first["kind"], first["system"])
        assert {"public.workflow_runs", "public.step_attempts"} <= set(first["event_tables"])

        async def told(wanted: float) -> set[str]:
            """The metrics told until as many jobs were completed in an interval."""
            assert process.stdout is not None
            metrics: set[str] = set()
            while True:
                line = json.loads(await process.stdout.readline())
                metrics.add(line.get("metric", ""))
                if line.get("metric") == "completion_rate" and line["value"] >= wanted:
                    return metrics

        await asyncio.wait_for(told(50), 60)
        assert await asyncio.wait_for(told(50), 60) >= REQUIRED
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.wait_for(told(50), 60)
        process.terminate()
        assert 0 == await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
