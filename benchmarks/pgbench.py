"""The limit: PostgreSQL's own load generator with the same statements and no engine at all.

`single` commits each statement (what the naive worker does); `batch` writes 250 runs at a time
(what group commit does). Both write the same rows as the workers.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import Workload
from tests.local_postgres import LocalPostgres

BATCH = 250
ENQUEUE_BATCH = 1000

#: What our worker asks of its connections, given to the batch form as well.
WORKER_PLANS = (
    "-c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    " -c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off"
)

_CLAIM = """
UPDATE workflow_runs
   SET status = 'running', worker_id = 'pgbench', claim_no = claim_no + 1,
       available_at = now() + interval '30 seconds', started_at = coalesce(started_at, now())
 WHERE id = ANY (ARRAY(
           SELECT id FROM workflow_runs
            WHERE namespace_id = 'default' AND status = 'pending' AND available_at <= now()
              AND workflow_name = '{workflow}'
            ORDER BY available_at LIMIT {limit} FOR UPDATE SKIP LOCKED))
"""

_CLAIM_ONE = _CLAIM + "RETURNING id AS run_id \\gset\n"
_CLAIM_MANY = (
    "WITH claimed AS (" + _CLAIM + "RETURNING id)\n"
    "SELECT array_agg(id)::text AS run_ids FROM claimed \\gset\n"
)

_STEP_ONE = """
INSERT INTO step_attempts (workflow_run_id, step_name, kind, status, output, claim_no, completed_at)
SELECT id, 'step-{number}', 'run', 'succeeded', '1', claim_no, now()
  FROM workflow_runs WHERE id = :run_id::uuid AND worker_id IS NOT NULL;
"""
_STEP_MANY = _STEP_ONE.replace("= :run_id::uuid", "= ANY (:run_ids::uuid[])")

_COMPLETE_ONE = """
UPDATE workflow_runs
   SET status = 'succeeded', output = '1', worker_id = NULL, completed_at = now()
 WHERE id = :run_id::uuid AND worker_id IS NOT NULL;
"""
_COMPLETE_MANY = _COMPLETE_ONE.replace("= :run_id::uuid", "= ANY (:run_ids::uuid[])")

_ENQUEUE = """
INSERT INTO workflow_runs (namespace_id, workflow_name, status, input, available_at)
SELECT 'default', 'one-step', 'pending', '1', now() FROM generate_series(1, {count});
"""


@dataclass(frozen=True, slots=True)
class Script:
    """One pgbench run: what a client repeats, how many clients, units done per repetition."""

    name: str
    sql: str
    clients: int
    units: int
    options: str = "-c jit=off"


def drain_scripts(workload: Workload) -> list[Script]:
    """Claim, steps and completion, in both forms."""
    return [
        Script("pgbench single", _drain(workload, 1, _CLAIM_ONE, _STEP_ONE, _COMPLETE_ONE), 16, 1),
        Script(
            "pgbench batch",
            _drain(workload, BATCH, _CLAIM_MANY, _STEP_MANY, _COMPLETE_MANY),
            2,
            BATCH,
            WORKER_PLANS,
        ),
    ]


def enqueue_scripts() -> list[Script]:
    """Inserts of new runs: alone, by many clients, a thousand at once."""
    return [
        Script("single", _ENQUEUE.format(count=1), 1, 1),
        Script("concurrent", _ENQUEUE.format(count=1), 16, 1),
        Script("batch", _ENQUEUE.format(count=ENQUEUE_BATCH), 1, ENQUEUE_BATCH),
    ]


def find_pgbench(server: LocalPostgres) -> Path | None:
    """pgbench of the measured server, else any on the PATH."""
    beside = server.bin_dir / "pgbench"
    found = str(beside) if beside.exists() else shutil.which("pgbench")
    return None if found is None else Path(found)


def run_script(server: LocalPostgres, database: str, script: Script, units: int) -> float:
    """Units per second, with `units` split evenly between the clients."""
    path = server.root / "script.sql"
    path.write_text(script.sql)
    path.chmod(0o644)
    repetitions = max(1, units // (script.units * script.clients))
    output = server.run(
        str(find_pgbench(server)),
        *("--no-vacuum", "--protocol=prepared", f"--file={path}"),
        *(f"--client={script.clients}", f"--transactions={repetitions}"),
        *("--host=127.0.0.1", f"--port={server.port}", "--username=postgres", database),
        environment={"PGOPTIONS": script.options},
        timeout=300,
    )
    rate = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if rate is None or "processed: 0" in output:
        msg = f"pgbench said nothing of a rate: {output}"
        raise RuntimeError(msg)
    return float(rate.group(1)) * script.units


def _drain(workload: Workload, limit: int, claim: str, step: str, complete: str) -> str:
    steps = "".join(step.format(number=number) for number in range(workload.steps))
    return claim.format(workflow=workload.workflow_name, limit=limit) + steps + complete
