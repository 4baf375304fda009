"""The worker to compare with: correct, durable and written the obvious way.

One connection for each run in progress, one statement for each thing that happens, each statement
its own commit. It runs on uvloop and asyncpg like ours, writes the same rows and fences every
write by its claim; it leaves out history, retries and heartbeats, which only makes it faster.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from benchmarks.workloads import trivial

CLAIM = """
UPDATE workflow_runs
   SET status = 'running', worker_id = $2, claim_no = claim_no + 1,
       available_at = now() + interval '30 seconds', started_at = coalesce(started_at, now())
 WHERE id = (SELECT id FROM workflow_runs
              WHERE namespace_id = 'default' AND status = 'pending' AND available_at <= now()
                AND workflow_name = $1
              ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, claim_no, input
"""

RECORD_STEP = """
INSERT INTO step_attempts (workflow_run_id, step_name, kind, status, output, claim_no, completed_at)
SELECT $1, $3, 'run', 'succeeded', $4, $2, now()
 WHERE EXISTS (SELECT 1 FROM workflow_runs
                WHERE id = $1 AND claim_no = $2 AND worker_id IS NOT NULL)
"""

COMPLETE = """
UPDATE workflow_runs
   SET status = 'succeeded', output = $3, worker_id = NULL, completed_at = now()
 WHERE id = $1 AND claim_no = $2 AND worker_id IS NOT NULL
"""

ENQUEUE = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, available_at)
VALUES ('default', $1, 'pending', $2, now())
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class NaiveWorker:
    """Works off every pending run of one workflow, `len(connections)` at a time."""

    connections: list[asyncpg.Connection[asyncpg.Record]]
    workflow_name: str
    steps: int

    async def drain(self) -> int:
        """Run until nothing is due; how many runs were completed."""
        async with asyncio.TaskGroup() as tasks:
            slots = [tasks.create_task(self._serve(connection)) for connection in self.connections]
        return sum(slot.result() for slot in slots)

    async def _serve(self, connection: asyncpg.Connection[asyncpg.Record]) -> int:
        completed = 0
        while (row := await connection.fetchrow(CLAIM, self.workflow_name, "naive")) is not None:
            await self._execute(connection, row["id"], row["claim_no"], json.loads(row["input"]))
            completed += 1
        return completed

    async def _execute(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        run_id: UUID,
        claim_no: int,
        run_input: int,
    ) -> None:
        result = 0
        for number in range(self.steps):
            result = await trivial(run_input)
            await connection.execute(
                RECORD_STEP, run_id, claim_no, f"step-{number}", json.dumps(result)
            )
        await connection.execute(COMPLETE, run_id, claim_no, json.dumps(result))


async def connect(url: str, count: int) -> list[asyncpg.Connection[asyncpg.Record]]:
    """`count` connections as anybody would open them."""
    return [await asyncpg.connect(url) for _ in range(count)]
