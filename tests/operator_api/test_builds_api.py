"""Pinned rollouts against a real API server and a real database.

There is no kubelet: the test plays the pods, which become ready and register their build.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import asyncpg
import pytest

from openworkflow_operator.process import Operator
from tests.control_plane import ApiRefusal
from tests.helpers import eventually
from tests.kubernetes_space import FAST, Space

Start = Callable[..., AbstractAsyncContextManager[Operator]]
PINNED = {"strategy": "Pinned", "canary": {"workflow": "smoke"}}
OLD, NEW = "registry.example.com/app:1", "registry.example.com/app:2"


class Rollouts:
    """The builds of a tenant as the cluster and the database have them."""

    def __init__(self, space: Space, sql: asyncpg.Connection[Any]) -> None:
        self.space, self.sql = space, sql

    def builds(self) -> dict[str, dict[str, Any]]:
        """`status.builds` by image; a build without a Deployment by its id."""
        builds = self.space.get().get("status", {}).get("builds", [])
        return {build.get("image", build["id"]): build for build in builds}

    def phase(self, image: str) -> str | None:
        found = self.builds().get(image)
        return None if found is None else str(found["phase"])

    async def come_up(self, image: str) -> str:
        """The build's first pod starts: it registers, and is ready."""
        build = await eventually(lambda: self.builds().get(image, {}), deadline=20)
        name = f"orders-worker-{build['id']}"
        await eventually(lambda: self.replicas(build["id"]) == 1)
        await self.sql.execute(
            "INSERT INTO workflow_builds (namespace_id, build_id) VALUES ('orders', $1)"
            " ON CONFLICT DO NOTHING",
            build["id"],
        )
        self.space.pod(f"{name}-pod", name)
        return str(build["id"])

    def replicas(self, build: str) -> int | None:
        found = self.space.deployment(f"orders-worker-{build}")
        return None if found is None else int(found["spec"]["replicas"])

    async def shares(self) -> dict[str, int]:
        rows = await self.sql.fetch("SELECT build_id, takes_to - takes_from FROM workflow_builds")
        return {row[0]: row[1] for row in rows}

    async def takes_all(self, build: str) -> bool:
        return (await self.shares()).get(build) == 100

    async def sleep(self, build: str) -> None:
        """A run of the build sleeps for a day."""
        await self.sql.execute(
            "INSERT INTO workflow_runs"
            " (workflow_name, namespace_id, status, available_at, build_id, pinned)"
            " VALUES ('w', 'orders', 'pending', now() + interval '1 day', $1, true)",
            build,
        )

    async def end_runs(self, build: str, *statuses: str) -> None:
        """New runs of the build end so."""
        await self.sql.execute(
            "INSERT INTO workflow_runs"
            " (workflow_name, namespace_id, status, available_at, completed_at, build_id, pinned)"
            " SELECT 'w', 'orders', status, now(), now(), $1, true FROM unnest($2::text[]) status",
            build,
            statuses,
        )

    async def end_canary(self, status: str) -> None:
        """The canary run ends so."""

        async def ended() -> bool:
            done = await self.sql.execute(
                "UPDATE workflow_runs SET status = $1, completed_at = now()"
                " WHERE workflow_name = 'smoke' AND status = 'pending'",
                status,
            )
            return bool(done == "UPDATE 1")

        await eventually(ended)


@pytest.fixture
def rollouts(tenant: Space, sql: asyncpg.Connection[Any]) -> Rollouts:
    return Rollouts(tenant, sql)


async def in_use(rollouts: Rollouts, rollout: dict[str, Any]) -> str:
    """A tenant whose first build is in use, with a run of it asleep."""
    rollouts.space.resource(
        scaling=FAST, rollout=rollout, worker={"image": OLD, "workflows": ["app"]}
    )
    build = await rollouts.come_up(OLD)
    await eventually(lambda: rollouts.takes_all(build))
    await rollouts.sleep(build)
    return build


async def test_a_new_build_takes_over_when_proven_and_the_old_one_comes_back_for_its_runs(
    rollouts: Rollouts, start: Start
) -> None:
    async with start():
        old = await in_use(rollouts, PINNED)
        await eventually(lambda: rollouts.replicas(old) == 0, deadline=20)

        rollouts.space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.phase(NEW) == "Verifying")
        assert {old: 100, new: 0} == await rollouts.shares()
        await rollouts.end_canary("succeeded")
        await eventually(lambda: rollouts.takes_all(new))
        await eventually(lambda: rollouts.space.condition("RolledOut") == ("True", "Current"))
        assert OLD in str(rollouts.space.deployment(f"orders-worker-{old}"))
        await eventually(lambda: rollouts.phase(OLD) == "Draining")

        await rollouts.sql.execute("UPDATE workflow_runs SET available_at = now() WHERE pinned")
        await eventually(lambda: rollouts.replicas(old) == 1)
        await rollouts.sql.execute("UPDATE workflow_runs SET status = 'succeeded' WHERE pinned")
        await eventually(lambda: rollouts.replicas(old) == 0, deadline=20)
        await eventually(lambda: rollouts.phase(OLD) == "Drained")


async def test_going_back_revives_the_build_that_was_in_use_without_another_proof(
    rollouts: Rollouts, start: Start
) -> None:
    async with start():
        old = await in_use(rollouts, {"strategy": "Pinned"})
        rollouts.space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.takes_all(new))
        uid = (rollouts.space.deployment(f"orders-worker-{old}") or {})["metadata"]["uid"]

        rollouts.space.patch({"worker": {"image": OLD}, "rollout": PINNED})
        await eventually(lambda: rollouts.takes_all(old), deadline=20)

        assert uid == (rollouts.space.deployment(f"orders-worker-{old}") or {})["metadata"]["uid"]
        canaries = "SELECT count(*) FROM workflow_runs WHERE workflow_name = 'smoke'"
        assert 0 == await rollouts.sql.fetchval(canaries)


async def test_a_failing_build_is_held_and_the_old_one_goes_on(
    rollouts: Rollouts, start: Start
) -> None:
    async with start():
        old = await in_use(rollouts, PINNED)
        rollouts.space.patch({"worker": {"image": NEW}})
        await rollouts.come_up(NEW)
        await rollouts.end_canary("failed")

        await eventually(lambda: rollouts.space.condition("RolledOut") == ("False", "Held"))
        assert await rollouts.takes_all(old)
        await eventually(
            lambda: (
                "the canary smoke ended as failed" in dict(rollouts.space.events()).get("Held", "")
            )
        )


async def test_a_ramp_goes_on_under_another_operator_and_ends_where_it_should(
    rollouts: Rollouts, start: Start
) -> None:
    ramp = [{"share": 10, "pauseSeconds": 3600}]
    async with start():
        old = await in_use(rollouts, {"strategy": "Pinned", "ramp": ramp})
        rollouts.space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.phase(NEW) == "Ramping")

    assert {old: 90, new: 10} == await rollouts.shares()
    await rollouts.sql.execute("UPDATE workflow_builds SET promoted_at = now() - interval '2 h'")
    async with start():
        await eventually(lambda: rollouts.takes_all(new), deadline=20)


async def test_a_build_whose_first_runs_fail_is_held_and_takes_no_more(
    rollouts: Rollouts, start: Start
) -> None:
    ramp = [{"share": 10, "pauseSeconds": 1}]
    limit = {"firstRuns": 4, "maxPercent": 25}
    async with start():
        old = await in_use(rollouts, {"strategy": "Pinned", "ramp": ramp, "failureLimit": limit})
        rollouts.space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.phase(NEW) == "Ramping")
        assert {old: 90, new: 10} == await rollouts.shares()

        await rollouts.end_runs(new, "succeeded", "failed")
        await eventually(
            lambda: "2 of the first 4 ended, 1 failed" in rollouts.builds()[NEW].get("message", ""),
            deadline=60,  # words that count are half a minute old at most
        )
        await rollouts.end_runs(new, "failed")

        await eventually(lambda: rollouts.takes_all(old))
        await eventually(lambda: rollouts.space.condition("RolledOut") == ("False", "Held"))
        told = "2 of its first 3 runs failed"
        await eventually(lambda: told in dict(rollouts.space.events()).get("Held", ""))


async def test_a_build_whose_first_runs_succeed_goes_on(rollouts: Rollouts, start: Start) -> None:
    ramp = [{"share": 10, "pauseSeconds": 1}]
    limit = {"firstRuns": 4, "maxPercent": 25}
    async with start():
        await in_use(rollouts, {"strategy": "Pinned", "ramp": ramp, "failureLimit": limit})
        rollouts.space.patch({"worker": {"image": NEW}})
        new = await rollouts.come_up(NEW)
        await eventually(lambda: rollouts.phase(NEW) == "Ramping")

        await rollouts.end_runs(new, "succeeded", "failed", "succeeded", "succeeded")

        await eventually(lambda: rollouts.takes_all(new))


async def test_an_old_build_without_runs_goes_away_by_itself(
    rollouts: Rollouts, start: Start
) -> None:
    """All but the last one in use, which is kept for a rollback."""
    async with start():
        first = await in_use(rollouts, {"strategy": "Pinned"})
        await rollouts.sql.execute("DELETE FROM workflow_runs")
        for image in (NEW, "registry.example.com/app:3"):
            rollouts.space.patch({"worker": {"image": image}})
            build = await rollouts.come_up(image)
            await eventually(partial(rollouts.takes_all, build), deadline=20)

        await eventually(lambda: rollouts.replicas(first) is None, deadline=20)
        await eventually(lambda: _forgotten(rollouts, first))
        await eventually(lambda: len(rollouts.builds()) == 2)


async def _forgotten(rollouts: Rollouts, build: str) -> bool:
    return build not in await rollouts.shares()


async def test_a_fleet_from_before_there_were_builds_is_replaced(
    rollouts: Rollouts, start: Start
) -> None:
    rollouts.space.resource(scaling=FAST, worker={"image": OLD, "workflows": ["app"]})
    async with start():
        await eventually(lambda: rollouts.space.replicas() is not None, deadline=20)
        rollouts.space.patch({"rollout": {"strategy": "Pinned"}})
        build = await rollouts.come_up(OLD)
        await eventually(lambda: rollouts.takes_all(build))
        await eventually(lambda: rollouts.space.replicas() is None, deadline=20)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"strategy": "Pinned"}, {"strategy": "RollingUpdate"}, "`strategy` must stay Pinned"),
        ({}, {"canary": {"workflow": "smoke"}}, "must come with `strategy: Pinned`"),
        ({"strategy": "Pinned"}, {"failureLimit": {"firstRuns": 9}}, "must come with `ramp`"),
        (
            {"strategy": "Pinned", "ramp": [{"share": 1, "pauseSeconds": 1}]},
            {"failureLimit": {"firstRuns": 51}},
            "at most 50 for each percent",
        ),
        (
            {"strategy": "Pinned"},
            {"ramp": [{"share": 50, "pauseSeconds": 1}, {"share": 10, "pauseSeconds": 1}]},
            "the shares of `ramp` must rise",
        ),
    ],
)
def test_what_would_strand_runs_is_refused(
    space: Space, before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    space.resource(rollout=before)

    with pytest.raises(ApiRefusal, match=message):
        space.patch({"rollout": after})


def test_builds_are_scaled_by_the_operator_alone(space: Space) -> None:
    with pytest.raises(ApiRefusal, match=r"`scaling\.mode` must be Auto"):
        space.resource(rollout={"strategy": "Pinned"}, scaling={"mode": "External"})
