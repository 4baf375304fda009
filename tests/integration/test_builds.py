"""Several builds at once on one queue: who may claim what, and how that is switched."""

from typing import Any

import pytest

from openworkflow import OpenWorkflow, RunStatus, Step, Worker, workflow
from openworkflow.backend.backend import BackendPostgres, NewRun, WorkerSession
from openworkflow.backend.builds import Build
from openworkflow.backend.records import ClaimRequest, claim_key
from openworkflow.core.errors import ConfigurationError, InvalidBuildState
from tests.flushes import end_of, expire_leases, flush, session_of
from tests.helpers import StartWorker, eventually

KEYS = [claim_key("w", "")]


@pytest.fixture
async def session(backend: BackendPostgres) -> Any:
    session = await session_of(backend)
    yield session
    await session.close()


async def claim(
    session: WorkerSession,
    build: str | None,
    *,
    pinned: bool = True,
    limit: int = 1000,
    worker: int = 1,
) -> list[Any]:
    request = ClaimRequest(limit, KEYS, build, KEYS if pinned and build else [])
    return (await flush(session, claim=request, worker=f"{build}/{worker}")).claimed


async def registered(backend: BackendPostgres, *builds: str) -> None:
    for build in builds:
        await backend.builds.register(build)


async def park(session: WorkerSession, runs: list[Any]) -> None:
    await flush(session, ends=[end_of(run, RunStatus.PENDING, delay=0.0) for run in runs])


async def test_a_pinned_run_waits_for_its_own_build(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    await backend.create_workflow_runs([NewRun("w")])
    await park(session, await claim(session, "v1"))

    assert [] == await claim(session, "v2")
    assert [] == await claim(session, None)
    (run,) = await claim(session, "v1")
    row = await backend.get_workflow_run(run.id)
    assert row is not None
    assert ("v1", True) == (row.build_id, row.pinned)


async def test_an_expired_lease_of_a_pinned_run_is_recovered_by_its_own_build(
    backend: BackendPostgres, session: WorkerSession, database_url: str
) -> None:
    await backend.create_workflow_runs([NewRun("w")])
    await claim(session, "v1")
    await expire_leases(database_url)

    assert [] == await claim(session, "v2")
    assert [True] == [run.recovered for run in await claim(session, "v1", worker=2)]


async def test_a_moving_run_goes_on_wherever_new_runs_go_and_keeps_the_name_of_its_first_build(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    await backend.create_workflow_runs([NewRun("w")])
    await park(session, await claim(session, "v1", pinned=False))
    await backend.builds.promote("v2")

    assert [] == await claim(session, "v1", pinned=False)
    (run,) = await claim(session, "v2", pinned=False)
    row = await backend.get_workflow_run(run.id)
    assert row is not None
    assert ("v1", False) == (row.build_id, row.pinned)


async def test_a_run_that_moved_is_pinned_to_the_build_that_pins_it(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await backend.create_workflow_runs([NewRun("w")])
    await park(session, await claim(session, "v1", pinned=False))

    await park(session, await claim(session, "v2"))

    assert [] == await claim(session, "v1")
    assert 1 == len(await claim(session, "v2"))


async def test_a_promotion_is_heeded_at_the_next_claim_without_a_restart(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    await backend.create_workflow_runs([NewRun("w")] * 4)

    assert 1 == len(await claim(session, "v1", limit=1))  # nobody is promoted: all take new runs
    await backend.builds.promote("v2")
    assert [] == await claim(session, "v1")
    assert [] == await claim(session, None)
    assert 1 == len(await claim(session, "v2", limit=1))
    await backend.builds.promote("v1")
    assert [] == await claim(session, "v2")
    assert 2 == len(await claim(session, "v1"))


async def test_a_share_of_the_new_runs_goes_to_a_build_and_the_rest_to_the_one_in_use(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v0", "v1", "v2")
    await backend.builds.promote("v1")
    await backend.builds.promote("v2", 20)
    await backend.create_workflow_runs([NewRun("w")] * 1000)

    new, old = await claim(session, "v2"), await claim(session, "v1")

    assert 1000 == len(new) + len(old)
    assert 120 < len(new) < 280  # of 1000 coins with 20 percent: six standard deviations
    assert [] == await claim(session, "v0")
    assert {"v1": 80, "v2": 20, "v0": 0} == {
        build.build_id: build.share for build in await backend.builds.list()
    }


async def test_a_held_build_gives_its_share_back_until_it_is_promoted_again(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    with pytest.raises(InvalidBuildState, match="no other build could take"):
        await backend.builds.hold("v2")
    await backend.builds.promote("v1")
    await backend.builds.promote("v2", 10)

    await backend.builds.hold("v2")

    held = {build.build_id: (build.share, bool(build.held_at)) for build in await _list(backend)}
    assert {"v1": (100, False), "v2": (0, True)} == held
    await backend.builds.promote("v2")
    assert [False, False] == [bool(build.held_at) for build in await _list(backend)]


async def _list(backend: BackendPostgres) -> list[Build]:
    return await backend.builds.list()


@pytest.mark.parametrize(
    ("build", "share", "message"),
    [
        ("v9", 100, "no worker of build 'v9' has started"),
        ("v1", 50, "nobody would take the other 50 percent"),
    ],
)
async def test_a_promotion_that_would_leave_runs_to_nobody_is_refused(
    backend: BackendPostgres, build: str, share: int, message: str
) -> None:
    await registered(backend, "v1")

    with pytest.raises(InvalidBuildState, match=message):
        await backend.builds.promote(build, share)
    assert [0] == [each.share for each in await backend.builds.list()]


async def test_the_list_counts_what_only_a_build_may_finish(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1")
    await backend.create_workflow_runs([NewRun("w")] * 3)
    due, asleep, _running = await claim(session, "v1")
    await park(session, [due])
    await flush(session, ends=[end_of(asleep, RunStatus.PENDING, delay=3600.0)])

    (build,) = await backend.builds.list()

    assert (1, 1, 1, 3) == (build.running, build.due, build.waiting, build.left)
    assert build.next_due_at is not None


async def test_a_build_with_runs_left_is_retired_only_by_moving_or_failing_them(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    await backend.create_workflow_runs([NewRun("w")] * 2)
    runs = await claim(session, "v1")
    await park(session, runs[:1])
    await backend.builds.promote("v2")

    with pytest.raises(InvalidBuildState, match="2 unfinished runs are pinned"):
        await backend.builds.retire("v1")
    with pytest.raises(InvalidBuildState, match="promote another build first"):
        await backend.builds.retire("v2")
    assert 2 == await backend.builds.retire("v1", "move")

    assert ["v2"] == [build.build_id for build in await backend.builds.list()]
    assert [runs[0].id] == [run.id for run in await claim(session, "v2")]


async def test_a_retired_build_may_fail_its_runs_and_its_workers_cannot_end_them_any_more(
    backend: BackendPostgres, session: WorkerSession
) -> None:
    await registered(backend, "v1", "v2")
    await backend.create_workflow_runs([NewRun("w")])
    (run,) = await claim(session, "v1")

    assert 1 == await backend.builds.retire("v1", "fail")

    assert {run.id} == (await flush(session, ends=[end_of(run)])).lost
    row = await backend.get_workflow_run(run.id)
    assert row is not None
    assert (RunStatus.FAILED, "BuildRetired") == (row.status, row.error["type"])


async def test_workers_of_two_builds_share_a_queue_and_each_finishes_what_it_began(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    """The old code sleeps, the new one is promoted meanwhile; both names are the same workflow."""

    def build_of(answer: str) -> Any:
        @workflow(name="w")
        async def run(step: Step) -> list[str]:
            first = await step.run("first", lambda: answer)
            await step.sleep("pause", "300ms")
            return [first, await step.run("second", lambda: answer)]

        return run

    options: dict[str, Any] = {"build_policy": "pinned"}
    await start_worker(build_of("old"), build_id="old", **options)
    before = await ow.run_workflows("w", [None] * 20)
    await eventually(lambda: _all_parked(backend))
    await start_worker(build_of("new"), build_id="new", **options)
    await backend.builds.promote("new")
    after = await ow.run_workflows("w", [None] * 20)

    assert [["old", "old"]] * 20 == [await run.result(timeout=20) for run in before]
    assert [["new", "new"]] * 20 == [await run.result(timeout=20) for run in after]


async def _all_parked(backend: BackendPostgres) -> bool:
    (build,) = await backend.builds.list()
    return build.waiting == 20


async def test_a_workflow_says_for_itself_whether_it_moves(
    ow: OpenWorkflow, backend: BackendPostgres, start_worker: StartWorker
) -> None:
    @workflow(build_policy="moving")
    async def nimble(step: Step) -> None:
        await step.sleep("long", "1h")

    @workflow(build_policy="pinned")
    async def loyal(step: Step) -> None:
        await step.sleep("long", "1h")

    await start_worker(nimble, loyal, build_id="v1", build_policy="pinned")
    runs = [await ow.run_workflow(nimble), await ow.run_workflow(loyal)]

    async def seen() -> list[tuple[str | None, bool]]:
        rows = [await run.run() for run in runs]
        return [(row.build_id, row.pinned) for row in rows]

    await eventually(lambda: _is([("v1", False), ("v1", True)], seen))


async def _is(expected: Any, actual: Any) -> bool:
    return bool(expected == await actual())


async def test_a_build_id_that_no_label_can_carry_is_refused(backend: BackendPostgres) -> None:
    @workflow
    async def w(step: Step) -> None: ...

    with pytest.raises(ConfigurationError, match="a build id is 1 to 128"):
        Worker(backend, [w], build_id="v 1")
