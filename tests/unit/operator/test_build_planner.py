"""Fleets of several builds: each keeps its own code and is scaled by its own runs."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import (
    BUILD_LABEL,
    DATABASE_ANNOTATION,
    SCALER_FIELD_MANAGER,
    WORKER_ANNOTATION,
)
from openworkflow_operator.api.spec import Worker, WorkflowNamespace
from openworkflow_operator.decide.build_planner import plan_builds, unproven_build
from openworkflow_operator.decide.observation import (
    DatabaseProblem,
    DatabaseReason,
    NewRuns,
    Observation,
)
from openworkflow_operator.decide.planner import Observed, Plan, Recollection
from openworkflow_operator.decide.pods import Pod
from openworkflow_operator.decide.rollout import BuildView, Hold, Phase, Promote
from openworkflow_operator.decide.scaling import Demand
from openworkflow_operator.desired.carried import carried, carry
from openworkflow_operator.desired.resources import wanted_objects
from openworkflow_operator.desired.workload import build_of

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
#: A small text that stands for a huge one.
BOMB = base64.b64encode(zlib.compress(bytes(2**25), 9)).decode()


def resource(image: str, **spec: Any) -> WorkflowNamespace:
    raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1", "generation": 1}
    raw["spec"] |= {"rollout": {"strategy": "Pinned"}} | spec
    raw["spec"]["worker"]["image"] = image
    return WorkflowNamespace.parse(raw)


OLD, NEW = resource("app:1"), resource("app:2")
OLD_BUILD, NEW_BUILD = build_of(OLD), build_of(NEW)


def deployment(of: WorkflowNamespace, replicas: int) -> dict[str, Any]:
    """The Deployment of a build as the API server holds it after the operator made it."""
    wanted = wanted_objects(replace(of, build=build_of(of)), "d", service_monitors_exist=False)
    live = copy.deepcopy(wanted[kinds.DEPLOYMENT])
    live["spec"]["replicas"] = replicas
    owned = {"manager": SCALER_FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    live["metadata"]["managedFields"] = [owned]
    return live


def look(views: dict[str, BuildView], due: int = 0, serial: int = 1) -> Observation:
    demand = Demand(due=due, oldest_due_age=0, running=0)
    new = NewRuns(max(0, due - sum(view.due for view in views.values())), 0)
    return Observation(demand, NOW, serial, builds=views, new=new)


def seen(of: WorkflowNamespace = NEW, **facts: Any) -> Observed:
    base: dict[str, Any] = {
        "resource": of,
        "build": build_of(of),
        "live": {},
        "pods": (Pod("n", ready=True, build=NEW_BUILD),),
        "database": None,
        "replicas_limit": 1000,
        "database_digest": "d",
        "fleets": {OLD_BUILD: deployment(OLD, 1), NEW_BUILD: deployment(NEW, 1)},
    }
    return Observed(**(base | facts))


def both(old: BuildView, new: BuildView) -> dict[str, BuildView]:
    return {OLD_BUILD: old, NEW_BUILD: new}


IN_USE = BuildView(share=100, is_main=True, is_promoted=True)
USED = BuildView(share=0, is_promoted=True, seconds_since_promotion=100)


def test_another_template_is_another_build_and_nothing_else_is() -> None:
    assert OLD_BUILD != NEW_BUILD
    assert NEW_BUILD == build_of(resource("app:2", scaling={"maxReplicas": 3}, paused=True))
    assert NEW_BUILD == build_of(replace(NEW, build="x"))
    assert NEW_BUILD != build_of(resource("app:2", worker={"image": "", "workflows": ["other"]}))


def test_the_first_build_is_a_deployment_whose_workers_know_their_build() -> None:
    made = plan_builds(seen(fleets={}, pods=()), Recollection(), 0)

    manifest = _deployment(made)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert f"orders-worker-{NEW_BUILD}" == manifest["metadata"]["name"]
    assert NEW_BUILD == manifest["spec"]["selector"]["matchLabels"][BUILD_LABEL]
    assert (NEW_BUILD, "pinned") == (
        env["OPENWORKFLOW_BUILD_ID"],
        env["OPENWORKFLOW_BUILD_POLICY"],
    )


def test_an_old_build_keeps_its_code_and_follows_a_rotated_secret() -> None:
    still = plan_builds(seen(database=look(both(USED, IN_USE))), Recollection(), 0)
    assert [] == list(still.others[OLD_BUILD].apply)

    rotated = seen(database=look(both(USED, IN_USE)), database_digest="rotated")
    manifest = _deployment(plan_builds(rotated, Recollection(), 0).others[OLD_BUILD])

    template = manifest["spec"]["template"]
    assert "app:1" == template["spec"]["containers"][0]["image"]
    assert "rotated" == template["metadata"]["annotations"][DATABASE_ANNOTATION]


def test_the_backlog_of_an_old_build_is_none_of_the_new_ones() -> None:
    """Neither its size nor its age: else the build in use would grow for nothing."""
    old = replace(USED, due=101, oldest_due_age=3600, saturated=True)
    demand = Demand(due=101, oldest_due_age=3600, running=0, saturated=True)
    views = both(old, IN_USE)
    backlog = Observation(demand, NOW, 1, builds=views, new=NewRuns(2, oldest_due_age=1))
    pods = (Pod("n", ready=True, build=NEW_BUILD), Pod("o", ready=True, build=OLD_BUILD))
    facts = seen(database=backlog, pods=pods)

    made = plan_builds(facts, Recollection(), 0)

    assert made.scale_to is None
    assert (made.others[OLD_BUILD].scale_to or 0) > 1


def test_a_build_needs_its_runs_until_it_is_in_use() -> None:
    def after(new: BuildView) -> str | None:
        made = plan_builds(seen(database=look(both(IN_USE, new))), Recollection(), 0)
        return unproven_build(NEW_BUILD, made.next)

    ramping = BuildView(share=10, is_promoted=True)
    assert NEW_BUILD == unproven_build(NEW_BUILD, Recollection()) == after(ramping)
    assert NEW_BUILD == after(BuildView(share=0, is_held=True))
    assert after(IN_USE) is None


def test_each_build_is_scaled_by_its_own_runs_and_its_share_of_the_new_ones() -> None:
    old = BuildView(share=80, is_main=True, is_promoted=True, due=15)
    new = BuildView(share=20, due=0)
    facts = seen(NEW, database=look(both(old, new), due=115))

    made = plan_builds(facts, Recollection(), 0)

    # Ten slots a pod; of the 100 new runs 80 and 20, and 15 that only the old one may finish.
    assert (2, 10) == (made.scale_to, made.others[OLD_BUILD].scale_to)


def test_an_old_build_goes_to_zero_while_its_runs_sleep_and_comes_back_for_them() -> None:
    asleep = replace(USED, next_wake_seconds=600.0)
    made = Plan("")
    for serial in (1, 2, 3):
        facts = seen(database=look(both(asleep, IN_USE), serial=serial))
        made = plan_builds(facts, made.next, serial * 1000.0)
    assert 0 == made.others[OLD_BUILD].scale_to
    assert not made.delete

    waking = look(both(replace(asleep, waking=1), IN_USE), serial=4)
    fleets = {OLD_BUILD: deployment(OLD, 0), NEW_BUILD: deployment(NEW, 1)}
    made = plan_builds(seen(database=waking, fleets=fleets), made.next, 4000.0)
    assert 1 == made.others[OLD_BUILD].scale_to


def test_a_build_is_removed_when_two_looks_saw_it_drained() -> None:
    done = BuildView(share=0)
    first = plan_builds(seen(database=look(both(done, IN_USE))), Recollection(), 0)
    again = plan_builds(seen(database=look(both(done, IN_USE))), first.next, 1)
    second = plan_builds(seen(database=look(both(done, IN_USE), serial=2)), again.next, 2)

    assert ([], []) == (list(first.delete), list(again.delete))
    assert [(kinds.DEPLOYMENT, f"orders-worker-{OLD_BUILD}")] == list(second.delete)


@pytest.mark.parametrize("pods_are_known", [True, False])
def test_a_build_that_nobody_knows_is_removed_only_where_its_pods_are_known(
    pods_are_known: bool,
) -> None:
    """A worker of it may have come up since the database was read."""
    first, second = (look({NEW_BUILD: IN_USE}, serial=serial) for serial in (1, 2))
    known = seen(database=first, pods_are_known=pods_are_known)
    past = plan_builds(known, Recollection(), 0).next

    removed = [name for _, name in plan_builds(replace(known, database=second), past, 1).delete]
    assert removed == ([f"orders-worker-{OLD_BUILD}"] if pods_are_known else [])


def test_a_fleet_whose_pods_are_not_known_is_not_made_smaller() -> None:
    fleets = {NEW_BUILD: deployment(NEW, 3)}
    past, targets = Recollection(), set()
    for serial in range(1, 9):
        database = look({NEW_BUILD: IN_USE}, serial=serial)
        observed = seen(database=database, fleets=fleets, pods=(), pods_are_known=False)
        planned = plan_builds(observed, past, serial * 1000.0)
        past = planned.next
        targets.add(planned.scale_to)

    assert {None} == targets


def test_a_build_whose_pods_are_not_known_is_judged_by_what_its_deployment_says() -> None:
    """A ramp was taken back, since no pod that could be listed was ready, and a quota was full."""
    views = both(replace(IN_USE, share=90), BuildView(share=10, is_promoted=True))
    full = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    fleet = deployment(NEW, 3) | {"status": {"readyReplicas": 2, "conditions": [full]}}
    fleets = {OLD_BUILD: deployment(OLD, 1), NEW_BUILD: fleet}
    facts = seen(database=look(views), fleets=fleets, pods=(), pods_are_known=False)

    made = plan_builds(facts, Recollection(), 0)
    assert Hold(NEW_BUILD) not in made.actions
    assert Phase.RAMPING is made.phases[NEW_BUILD][0]


def test_a_look_from_before_the_operators_own_change_decides_nothing() -> None:
    views = both(IN_USE, BuildView(share=0))
    facts = seen(database=look(views, serial=7))
    assert [Promote(NEW_BUILD)] == list(plan_builds(facts, Recollection(), 0).actions)

    acted = replace(plan_builds(facts, Recollection(), 0).next, acted_serial=8)

    assert [] == list(plan_builds(facts, acted, 1).actions)
    assert [] == list(plan_builds(seen(database=look(views, serial=8)), acted, 2).actions)
    assert [Promote(NEW_BUILD)] == list(
        plan_builds(seen(database=look(views, serial=9)), acted, 3).actions
    )


def test_a_database_that_cannot_be_read_holds_every_build() -> None:
    problem = DatabaseProblem(DatabaseReason.UNREACHABLE, "no answer", serial=9)

    made = plan_builds(seen(database=problem), Recollection(), 0)

    assert {Phase.UNKNOWN} == {phase for phase, _ in made.phases.values()}
    assert ([], [], None) == (list(made.actions), list(made.delete), made.scale_to)
    assert made.others[OLD_BUILD].scale_to is None


def test_a_build_whose_recipe_somebody_broke_is_left_alone() -> None:
    broken = deployment(OLD, 3)
    broken["metadata"]["annotations"][WORKER_ANNOTATION] = "{"
    fleets = {OLD_BUILD: broken, NEW_BUILD: deployment(NEW, 1)}

    made = plan_builds(
        seen(database=look(both(replace(USED, due=5), IN_USE)), fleets=fleets), Recollection(), 0
    )

    assert {} == made.others
    assert [] == list(made.delete)


def test_zero_pins_all_builds_and_other_pins_those_that_take_new_runs() -> None:
    views = look(both(replace(USED, due=5), IN_USE))
    stopped = plan_builds(seen(replace(NEW, replicas=0), database=views), Recollection(), 0)
    pinned = plan_builds(seen(replace(NEW, replicas=4), database=views), Recollection(), 0)

    assert (0, 0) == (stopped.scale_to, stopped.others[OLD_BUILD].scale_to)
    assert (4, None) == (pinned.scale_to, pinned.others[OLD_BUILD].scale_to)


def _deployment(made: Plan) -> dict[str, Any]:
    return next(manifest for kind, manifest in made.apply if kind is kinds.DEPLOYMENT)


DOWN = DatabaseProblem(DatabaseReason.UNREACHABLE, "no answer", serial=9)


def test_a_pin_makes_no_unproven_build_larger_while_the_database_is_down() -> None:
    pinned = resource("app:2", replicas=7, scaling={"minReplicas": 3})
    facts = seen(pinned, database=DOWN)

    restarted = plan_builds(facts, Recollection(), 0)
    assert (None, None) == (restarted.scale_to, restarted.others[OLD_BUILD].scale_to)

    views = both(BuildView(share=100, is_main=True, is_promoted=True), BuildView(share=0))
    known = plan_builds(seen(pinned, database=look(views)), Recollection(), 0).next
    assert (None, 7) == (
        plan_builds(facts, known, 1).scale_to,
        plan_builds(facts, known, 1).others[OLD_BUILD].scale_to,
    )


def test_a_new_build_of_a_database_that_is_down_gets_no_pods_before_it_is_known() -> None:
    pinned = resource("app:2", replicas=7, scaling={"minReplicas": 3})
    facts = seen(pinned, database=DOWN, fleets={OLD_BUILD: deployment(OLD, 1)}, pods=())

    made = plan_builds(facts, Recollection(), 0)

    assert 0 == made.scale_to


def test_the_first_build_of_all_follows_its_owner_also_without_the_database() -> None:
    pinned = resource("app:2", replicas=7)

    assert 7 == plan_builds(seen(pinned, database=DOWN, fleets={}), Recollection(), 0).scale_to
    stopped = resource("app:2", replicas=0)
    assert 0 == plan_builds(seen(stopped, database=DOWN), Recollection(), 0).scale_to


def test_a_long_section_is_carried_in_a_quarter_of_what_annotations_may_have() -> None:
    env = [{"name": f"SETTING_{n}", "value": f"{n} " * 500} for n in range(300)]
    long = replace(OLD, worker=Worker.parse({**OLD.worker.raw, "env": env}))
    text = carry(long.worker)

    assert len(str(long.worker.raw)) > 2**19
    assert len(text) < 2**16
    assert long.worker.raw == carried(text).raw
    assert OLD.worker.raw == json.loads(carry(OLD.worker))


@pytest.mark.parametrize("text", ["zlib:", "zlib:!", "zlib:AAAA", "{", "[]", "zlib:" + BOMB])
def test_a_section_that_somebody_broke_is_no_section(text: str) -> None:
    broken = deployment(OLD, 1)
    broken["metadata"]["annotations"][WORKER_ANNOTATION] = text
    facts = seen(database=DOWN, fleets={OLD_BUILD: broken, NEW_BUILD: deployment(NEW, 1)})

    assert OLD_BUILD not in plan_builds(facts, Recollection(), 0).others
