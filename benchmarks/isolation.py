"""What row security costs a tenant: `python -m benchmarks.isolation`.

The same worker drains the same backlog as three roles in turn: the tables' owner without roles,
the worker's role, and a role bound to the namespace, beside as many tenants as asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Coroutine

import asyncpg

from benchmarks.database import Bench, Preload, start_server
from benchmarks.measure import worked_off
from benchmarks.report import describe_machine
from benchmarks.workloads import Workload
from openworkflow.backend.arranging import Wish, arrange
from openworkflow.backend.roles import Kind, Role

PREFIX = "bench"


async def as_owner(url: str, tenants: int) -> None:
    """Leave the database as it is without roles."""


async def as_worker(url: str, tenants: int) -> None:
    """Roles, and nobody bound."""
    await arrange(url, "public", Wish(PREFIX))
    await _execute(url, f"grant {PREFIX}_worker to bench_login")


async def as_tenant(url: str, tenants: int) -> None:
    """Bound to the namespace, one of many."""
    bound = Role("bench_login", (Kind.WORKER,), "default")
    await arrange(url, "public", Wish(PREFIX, (bound,)))
    await _execute(
        url,
        "insert into openworkflow_roles select 'tenant_' || n, array['worker'], 'n_' || n "
        f"from generate_series(2, {tenants}) n",
        "analyze openworkflow_roles",
    )


ROLES: dict[str, Callable[[str, int], Coroutine[object, object, None]]] = {
    "owner, no roles": as_owner,
    "worker's role": as_worker,
    "bound to a namespace": as_tenant,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20_000, help="W2: a tenth, of ten steps each")
    parser.add_argument("--tenants", type=int, default=1000, help="bound roles beside this one")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    server = start_server()
    try:
        bench = Bench(server)
        for _ in range(options.rounds):
            for workload in Workload:
                preload = Preload(options.runs // workload.steps, workload=workload)
                for name in ROLES:
                    figures = drain(bench, name, preload, options.tenants)
                    found.setdefault((workload.value, name), []).append(figures)
                    print(workload.value, name, figures, file=sys.stderr, flush=True)
    finally:
        server.stop()
    print(json.dumps(describe_machine()))
    print(
        "| workload | role | runs/s | server CPU a run | client CPU a run |\n|---|---|--:|--:|--:|"
    )
    for (kind, name), many in found.items():
        cells = [f"{statistics.median(each[key] for each in many):,.0f}" for key in many[0]]
        print(f"| {kind} | {name} | {cells[0]} | {cells[1]} µs | {cells[2]} µs |")
    return 0


def drain(bench: Bench, role: str, preload: Preload, tenants: int) -> dict[str, float]:
    """Runs per second, and CPU in microseconds for each run."""
    with bench.database(preload) as name:
        admin = bench.server.url(name)
        asyncio.run(_execute(admin, "create role bench_login login"))
        try:
            asyncio.run(ROLES[role](admin, tenants))
            url = admin if role == "owner, no roles" else admin.replace("postgres@", "bench_login@")
            report = worked_off(bench, "ours", preload, url)
            bench.check_drained(name, preload.pending, preload.workload)
        finally:
            asyncio.run(_forget(admin))
    return {
        "runs": preload.pending / report["seconds"],
        "server": report["server_cpu_seconds"] / preload.pending * 1e6,
        "client": report["cpu_seconds"] / preload.pending * 1e6,
    }


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def _forget(url: str) -> None:
    names = ["bench_login", *(f"{PREFIX}_{kind}" for kind in Kind)]
    connection = await asyncpg.connect(url)
    for name in names:
        if await connection.fetchval("select true from pg_roles where rolname = $1", name):
            await connection.execute(f"drop owned by {name} cascade; drop role {name}")
    await connection.close()


if __name__ == "__main__":
    sys.exit(main())
