"""Rollouts whose operator is killed after everything it does, on a real database.

The cluster is played: Deployments are a dictionary, a pod is ready one look after it was asked for.
What the operator reads and writes in the database is its own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import BUILD_LABEL, SCALER_FIELD_MANAGER
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.dsn import parse
from openworkflow_operator.database.routes import carry_out
from openworkflow_operator.decide.build_planner import plan_builds
from openworkflow_operator.decide.planner import Observed, Plan, Recollection
from openworkflow_operator.decide.pods import Pod
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.desired.workload import build_of

MINIMAL = Path(__file__).parents[2] / "manifests/examples/minimal.yaml"
LOCAL = ConnectOptions(allow_loopback=True)
ROLLOUT = {
    "strategy": "Pinned",
    "canary": {"workflow": "smoke"},
    "ramp": [{"share": 10, "pauseSeconds": 60}],
    "failureLimit": {"firstRuns": 1, "maxPercent": 0},
}
#: More visits than any of these rollouts takes.
VISITS = 120


def resource(image: str) -> WorkflowNamespace:
    raw = yaml.safe_load(MINIMAL.read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1", "generation": 1}
    raw["spec"] |= {"rollout": ROLLOUT}
    raw["spec"]["worker"]["image"] = image
    return WorkflowNamespace.parse(raw)


V1, V2, V3 = (resource(f"app:{number}") for number in (1, 2, 3))


class World:
    """A cluster, a database, and an operator that may die after each of its effects."""

    def __init__(
        self, url: str, sql: asyncpg.Connection[Any], database: Database, *, mortal: bool
    ) -> None:
        self._url, self._sql, self._database, self._mortal = url, sql, database, mortal
        self._serials = itertools.count()
        self._clock = itertools.count(step=1000.0)
        self._past = Recollection()
        self.deployments: dict[str, dict[str, Any]] = {}
        self.phases: dict[str, Phase] = {}
        self.canary_ends = "succeeded"
        self.runs_end = "succeeded"

    async def visit(self, wanted: WorkflowNamespace) -> None:
        """Look, decide and act once; a mortal operator forgets everything after its first act."""
        await self._live()
        seen = await self._observe(wanted)
        decided = plan_builds(seen, self._past, next(self._clock))
        self._past = decided.next
        self.phases = {build: phase for build, (phase, _) in decided.phases.items()}
        for effect in self._effects(wanted, decided):
            if isinstance(effect, str):
                await self._check_removal(effect)
            elif effect is not None:
                where = (parse(self._url), "public", wanted.namespace_id)
                await carry_out([effect], *where, LOCAL)
                self._past = replace(self._past, acted_serial=next(self._serials))
            if self._mortal:
                self._past = Recollection()
                return

    async def until(
        self, wanted: WorkflowNamespace, *phases: tuple[WorkflowNamespace, Phase]
    ) -> None:
        """Visit until the builds of these are in these phases."""
        for _ in range(VISITS):
            await self.visit(wanted)
            if all(self.phases.get(build_of(of)) is phase for of, phase in phases):
                return
        wanted_phases = {build_of(of): phase for of, phase in phases}
        pytest.fail(f"{wanted_phases} not reached, but {self.phases}")

    async def until_gone(self, wanted: WorkflowNamespace, gone: WorkflowNamespace) -> None:
        for _ in range(VISITS):
            await self.visit(wanted)
            if build_of(gone) not in self.phases:
                return
        pytest.fail(f"it is still there: {self.phases}")

    async def sleep_on(self, build: WorkflowNamespace) -> None:
        """A run that only this build can finish sleeps for a day."""
        await self._sql.execute(
            "INSERT INTO workflow_runs"
            " (namespace_id, workflow_name, status, available_at, build_id, pinned)"
            " VALUES ($1, 'nap', 'pending', now() + interval '1 day', $2, true)",
            build.namespace_id,
            build_of(build),
        )

    async def wake(self) -> None:
        await self._sql.execute(
            "UPDATE workflow_runs SET available_at = now() WHERE workflow_name = 'nap'"
        )

    def _effects(self, wanted: WorkflowNamespace, decided: Plan) -> Iterator[Any]:
        """Do what the plan says, in the operator's order; yields after, or for, each effect."""
        parts = {build_of(wanted): decided, **decided.others}
        for build, part in parts.items():
            for kind, manifest in part.apply:
                if kind is kinds.DEPLOYMENT:
                    self._apply(build, manifest)
                    yield None
        for kind, name in decided.delete:
            if kind is kinds.DEPLOYMENT:
                build = name.removeprefix(f"{wanted.key.name}-worker-")
                del self.deployments[build]
                yield build
        for build, part in parts.items():
            known = build in self.deployments and part.scale_to is not None
            if known and self._replicas(build) != part.scale_to:
                self.deployments[build]["spec"]["replicas"] = part.scale_to
                yield None
        yield from decided.actions

    def _apply(self, build: str, manifest: Any) -> None:
        replicas = self._replicas(build)
        made = copy.deepcopy(dict(manifest))
        made["spec"].setdefault("replicas", replicas)
        owned = {"manager": SCALER_FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        made["metadata"]["managedFields"] = [owned]
        assert build == made["spec"]["selector"]["matchLabels"][BUILD_LABEL]
        self.deployments[build] = made

    def _replicas(self, build: str) -> int:
        found = self.deployments.get(build)
        return 0 if found is None else int(found["spec"]["replicas"])

    async def _check_removal(self, build: str) -> None:
        left = await self._sql.fetchval(
            "SELECT count(*) FROM workflow_runs"
            " WHERE build_id = $1 AND pinned AND status IN ('pending', 'running')",
            build,
        )
        assert not left, f"{build} was removed with runs left on it"

    async def _live(self) -> None:
        """What pods do: register their build, and finish what is due and theirs. Time passes."""
        for build in self.deployments:
            if not self._replicas(build):
                continue
            await self._sql.execute(
                "INSERT INTO workflow_builds (namespace_id, build_id) VALUES ($1, $2)"
                " ON CONFLICT DO NOTHING",
                V1.namespace_id,
                build,
            )
            await self._sql.execute(
                "INSERT INTO workflow_runs (namespace_id, workflow_name, status, available_at,"
                " completed_at, build_id, pinned, created_at)"
                " SELECT namespace_id, 'new', $3, now(), now(), build_id, true, now()"
                " FROM workflow_builds WHERE namespace_id = $1 AND build_id = $2"
                " AND takes_to > takes_from",
                V1.namespace_id,
                build,
                self.runs_end,
            )
            await self._sql.execute(
                "UPDATE workflow_runs SET completed_at = now(), status ="
                " CASE WHEN workflow_name = 'smoke' THEN $2 ELSE 'succeeded' END"
                " WHERE build_id = $1 AND pinned AND status = 'pending' AND available_at <= now()"
                " AND NOT (workflow_name = 'smoke' AND $2 = 'pending')",
                build,
                self.canary_ends,
            )
        await self._sql.execute(
            "UPDATE workflow_builds SET promoted_at = promoted_at - interval '10 s'"
        )
        await self._sql.execute(
            "UPDATE workflow_runs SET created_at = created_at - interval '10 s',"
            " completed_at = completed_at - interval '10 s'"
        )

    async def _observe(self, wanted: WorkflowNamespace) -> Observed:
        question = Question(wanted.namespace_id, 100, 100, 20, build_of(wanted), "smoke", 1)
        found = await self._database.look([question], next(self._serials))
        pods = [
            Pod(f"{build}-{number}", ready=True, build=build)
            for build in self.deployments
            for number in range(self._replicas(build))
        ]
        return Observed(
            resource=wanted,
            build=build_of(wanted),
            live={},
            pods=pods,
            database=found[wanted.namespace_id],
            replicas_limit=1000,
            database_digest="d",
            fleets=copy.deepcopy(self.deployments),
        )


@pytest.fixture(params=[False, True], ids=["it-lives", "it-dies-after-each-effect"])
async def world(
    request: pytest.FixtureRequest,
    database_url: str,
    sql: asyncpg.Connection[Any],
    database: Database,
) -> World:
    world = World(database_url, sql, database, mortal=request.param)
    await world.until(V1, (V1, Phase.CURRENT))
    await world.sleep_on(V1)
    return world


async def test_a_rollout_ends_and_the_old_build_is_kept_for_its_runs(world: World) -> None:
    await world.until(V2, (V2, Phase.CURRENT), (V1, Phase.DRAINING))
    await world.wake()
    await world.until(V2, (V1, Phase.DRAINED))

    await world.until(V3, (V3, Phase.CURRENT), (V2, Phase.DRAINED))
    await world.until_gone(V3, V1)


async def test_going_back_in_the_middle_of_a_ramp(world: World) -> None:
    await world.until(V2, (V2, Phase.RAMPING))

    await world.until(V1, (V1, Phase.CURRENT), (V2, Phase.DRAINED))


async def test_going_back_revives_and_there_and_back_again(world: World) -> None:
    await world.until(V2, (V2, Phase.CURRENT), (V1, Phase.DRAINING))
    await world.until(V1, (V1, Phase.CURRENT), (V2, Phase.DRAINED))

    await world.until(V2, (V2, Phase.CURRENT), (V1, Phase.DRAINING))


async def test_a_failed_canary_holds_and_the_next_image_goes_on(world: World) -> None:
    world.canary_ends = "failed"
    await world.until(V2, (V2, Phase.HELD), (V1, Phase.CURRENT))

    world.canary_ends = "succeeded"
    await world.until(V3, (V3, Phase.CURRENT), (V1, Phase.DRAINING))
    await world.until_gone(V3, V2)


async def test_a_canary_that_never_ends_does_not_outlive_the_wish_for_its_build(
    world: World,
) -> None:
    world.canary_ends = "pending"
    await world.until(V2, (V2, Phase.VERIFYING), (V1, Phase.CURRENT))

    await world.until(V1, (V1, Phase.CURRENT), (V2, Phase.DRAINED))
    await world.until_gone(V1, V2)
    world.canary_ends = "succeeded"
    await world.until(V2, (V2, Phase.CURRENT), (V1, Phase.DRAINING))


async def test_failing_first_runs_hold_and_the_old_build_takes_over(world: World) -> None:
    world.runs_end = "failed"
    await world.until(V2, (V2, Phase.HELD), (V1, Phase.CURRENT))

    world.runs_end = "succeeded"
    await world.until(V1, (V1, Phase.CURRENT))
    await world.until_gone(V1, V2)
