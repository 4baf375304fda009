"""New code that cannot go on with old runs is deployed under load, held if broken, taken back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from openworkflow import RunHandle
from tests.e2e.conftest import Tenant
from tests.real_cluster import watched

SCALING = {
    "pollPeriodSeconds": 1,
    "scaleInDelaySeconds": 3,
    "maxReplicas": 2,
    "activationLeadSeconds": 10,
}
PINNED = {"strategy": "Pinned", "canary": {"workflow": "smoke"}}
#: The steps of `fulfil`, and how its result ends.
CODE = {
    "v1": (["charge", "deliver", "until-delivery"], "delivered"),
    "v2": (["reserve", "ship", "until-shipping"], "shipped"),
}
Report = Callable[[str, float], None]


class Builds:
    """The tenant's builds by the tag of their image."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def deploy(self, tag: str) -> float:
        """Declare this image; when that was."""
        image = f"{self.tenant.cluster.builds_image}:{tag}"
        worker = {"image": image, "concurrency": 5}
        self.tenant.declare(scaling=SCALING, rollout=PINNED, worker=worker)
        return time.monotonic()

    async def in_use(self, tag: str) -> tuple[str, str]:
        """Wait until it takes all new runs; its id, and a time after which each claim heeds it."""
        entry = await self.tenant.until(lambda: self.entry(tag), f"{tag} has a Deployment")
        query = (
            "SELECT clock_timestamp()::text FROM workflow_builds"
            f" WHERE build_id = '{entry['id']}' AND takes_to - takes_from = 100"
        )
        since = await self.tenant.until(lambda: self.value(query), f"{tag} takes all new runs")
        return entry["id"], since

    async def phase(self, tag: str, phase: str) -> None:
        await self.tenant.until(
            lambda: self.entry(tag).get("phase") == phase, f"{tag} is {phase}", seconds=120
        )

    def entry(self, tag: str) -> dict[str, Any]:
        """What the status says of it."""
        entries = self.tenant.status().get("builds", [])
        return next((e for e in entries if e.get("image", "").endswith(f":{tag}")), {})

    async def phases_until_it_crashed_again(self, tag: str, build: str) -> set[str]:
        """The phases in which it was meanwhile."""
        seen: set[str] = set()

        def crashed() -> bool:
            seen.add(self.entry(tag)["phase"])
            worker = self.pods(build)[0]["status"]["containerStatuses"][0]
            return worker["restartCount"] >= 2 and "waiting" in worker["state"]

        await self.tenant.until(crashed, f"{tag} was started again, and crashed again")
        return seen

    def pods(self, build: str) -> list[Any]:
        """Its pods, those that end included."""
        pods: list[Any] = self.tenant.get("pods", "-l", f"openworkflow.dev/build={build}").get(
            "items", []
        )
        return pods

    def deployment(self, build: str) -> Any:
        return self.tenant.get("deployment", f"orders-worker-{build}")

    def value(self, query: str) -> str | None:
        found = self.tenant.server.fetch_value(query, self.tenant.database)
        return None if found is None else str(found)

    def finished_by(self, builds: dict[str, str]) -> None:
        """Every run succeeded, with the steps and the result of the code of its build, once each.

        `builds` are tags by id.
        """
        query = (
            "SELECT json_object_agg(id, json_build_array(build_id, status, output))::text"
            " FROM workflow_runs WHERE workflow_name = 'fulfil'"
        )
        steps: dict[str, list[str]] = {}
        for key in self.tenant.steps():
            run, _, name = key.partition(" ")
            steps.setdefault(run, []).append(name)
        for run, (build, status, output) in json.loads(self.value(query) or "{}").items():
            names, ending = CODE[builds[build]]
            assert (status, names) == ("succeeded", sorted(steps[run]))
            assert output.startswith(f"{builds[build]}-")
            assert output.endswith(ending)
        assert 0 == self.tenant.count("status <> 'succeeded'")
        attempts = self.value("SELECT count(*) FROM step_attempts WHERE status <> 'succeeded'")
        assert "0" == attempts, "no step was interrupted or repeated"


@asynccontextmanager
async def load(tenant: Tenant) -> AsyncIterator[list[RunHandle[Any]]]:
    """New runs keep coming during the block, five a second; all that there were."""
    runs: list[RunHandle[Any]] = []
    ended = asyncio.Event()

    async def enqueue() -> None:
        while not ended.is_set():
            order = {"number": len(runs), "busy_seconds": 0.5}
            runs.append(await tenant.ow.run_workflow("fulfil", order))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(enqueue())
    try:
        yield runs
    finally:
        ended.set()
        await task


async def results(runs: list[RunHandle[Any]]) -> list[str]:
    return [await run.result(timeout="120s") for run in runs]


async def old_runs(tenant: Tenant) -> list[RunHandle[Any]]:
    """Five runs that sleep for 30 s, five for a minute, and ten in a long step."""
    sleep = [{"number": n, "delivery": "30s" if n % 2 else "60s"} for n in range(10)]
    sleepers = await tenant.ow.run_workflows("fulfil", sleep)
    work = [{"number": n, "busy_seconds": 8} for n in range(10)]
    busy = await tenant.ow.run_workflows("fulfil", work)
    await tenant.until(lambda: asleep(tenant) == 10, "ten runs sleep")
    begun = "input->>'busy_seconds' = '8' AND started_at IS NOT NULL"
    await tenant.until(lambda: tenant.count(begun) == 10, "ten runs are busy")
    assert tenant.count(f"{begun} AND status = 'running'") > 0
    return [*sleepers, *busy]


def asleep(tenant: Tenant) -> int:
    """Runs that sleep for longer than a run of the load does."""
    return tenant.count("status = 'pending' AND available_at > now() + interval '2 s'")


async def test_incompatible_code_is_deployed_under_load_and_every_run_ends_where_it_began(
    tenant: Tenant, report: Report
) -> None:
    builds = Builds(tenant)
    builds.deploy("v1")
    v1, _ = await builds.in_use("v1")
    with watched(tenant.cluster, tenant.namespace, f"orders-worker-{v1}") as fleet:
        await tenant.until(lambda: fleet.seen, "the watch is open")
        async with load(tenant) as runs:
            runs += await old_runs(tenant)
            started = builds.deploy("v2")
            v2, since = await builds.in_use("v2")
            report("from the new image to all new runs, the canary's included", ago(started))
            await tenant.until(lambda: not builds.pods(v1), "v1 is at zero")
            zero = len(fleet.seen)
            assert asleep(tenant) > 0
            report("and to no pod of the old build, whose runs sleep", ago(started))
            await tenant.until(lambda: asleep(tenant) == 0, "the last run wakes")
        await results(runs)
    assert any(asked for _, asked, _ in fleet.seen[zero:]), "v1 came back"
    await builds.phase("v1", "Drained")
    report("and to nothing left on the old build", ago(started))

    builds.finished_by({v1: "v1", v2: "v2"})
    began_before = (
        f"started_at < (SELECT promoted_at FROM workflow_builds WHERE build_id = '{v2}')"
        " - interval '1 s' AND workflow_name = 'fulfil'"
    )
    assert tenant.count(began_before) == tenant.count(f"{began_before} AND build_id = '{v1}'") >= 20
    began_after = f"started_at > '{since}'"
    assert tenant.count(began_after) == tenant.count(f"{began_after} AND build_id = '{v2}'") > 20
    assert 1 == tenant.count(f"workflow_name = 'smoke' AND build_id = '{v2}'")
    late = float(builds.value(LATEST_WAKE_UP) or "nan")
    report("from the end of a minute's sleep to the next step's end, at worst", late)
    assert 0 <= late < 5, "the old build was started ahead of the wake-up"


def ago(moment: float) -> float:
    return time.monotonic() - moment


LATEST_WAKE_UP = """
    SELECT max(extract(epoch FROM next.completed_at - sleep.created_at - interval '60 s'))
      FROM step_attempts next
      JOIN step_attempts sleep USING (workflow_run_id)
      JOIN workflow_runs run ON run.id = workflow_run_id
     WHERE next.step_name = 'deliver' AND sleep.step_name = 'until-delivery'
       AND run.input->>'delivery' = '60s'
"""


async def test_a_broken_build_is_held_and_going_back_revives_the_one_before(
    tenant: Tenant, report: Report
) -> None:
    builds = Builds(tenant)
    builds.deploy("v1")
    v1, _ = await builds.in_use("v1")
    uid = builds.deployment(v1)["metadata"]["uid"]
    async with load(tenant) as runs:
        builds.deploy("v2")
        v2, _ = await builds.in_use("v2")
        await builds.phase("v1", "Drained")

        started = builds.deploy("broken")
        await builds.phase("broken", "Held")
        report("from the broken image to Held", ago(started))
        held = builds.entry("broken")
        assert "CrashLooping" in held["message"]
        known = len(runs)
        assert {"Held"} == await builds.phases_until_it_crashed_again("broken", held["id"])
        assert {"v2"} == {result.split("-")[0] for result in await results(runs[known:])}

        started = builds.deploy("v1")
        _, since = await builds.in_use("v1")
        report("from the old image to all new runs", ago(started))
        began_after = f"started_at > '{since}'"
        await tenant.until(lambda: tenant.count(began_after) >= 20, "new runs begin")
        assert 0 == tenant.count(f"{began_after} AND build_id <> '{v1}'")
        await tenant.until(lambda: not builds.deployment(held["id"]), "the broken build is gone")
        report("and to the end of the broken build", ago(started))
        await builds.phase("v2", "Drained")
    await results(runs)

    assert uid == builds.deployment(v1)["metadata"]["uid"]
    assert 1 == tenant.count("workflow_name = 'smoke'"), "going back takes no canary"
    builds.finished_by({v1: "v1", v2: "v2"})
