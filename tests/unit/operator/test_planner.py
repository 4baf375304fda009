"""What the operator does about what it sees, as a table of situations."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import SCALER_FIELD_MANAGER
from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.decide.observation import DatabaseProblem, DatabaseReason, Observation
from openworkflow_operator.decide.planner import Observed, Plan, Recollection, plan
from openworkflow_operator.decide.pods import Pod
from openworkflow_operator.decide.scaling import Demand, Limit
from openworkflow_operator.desired.resources import wanted_objects

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


def resource(**spec: Any) -> WorkflowNamespace:
    raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1", "generation": 1}
    raw["spec"] |= spec
    return WorkflowNamespace.parse(raw)


def running(
    of: WorkflowNamespace, replicas: int, manager: str = SCALER_FIELD_MANAGER, digest: str = "d"
) -> dict[Kind, Any]:
    """The objects as the API server holds them after the operator made them."""
    live = copy.deepcopy(wanted_objects(of, digest, service_monitors_exist=False))
    deployment = live[kinds.DEPLOYMENT]
    deployment["spec"]["replicas"] = replicas
    owned = {"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    deployment["metadata"]["managedFields"] = [owned]
    return dict(live)


def look(due: int = 0, running: int = 0, serial: int = 1, **busy: int) -> Observation:
    demand = Demand(due=due, oldest_due_age=0, running=running)
    return Observation(demand, NOW, serial, busy=busy)


def seen(of: WorkflowNamespace, **facts: Any) -> Observed:
    base: dict[str, Any] = {"resource": of, "build": "b", "live": {}, "pods": (), "database": None}
    base["replicas_limit"] = 1000
    return Observed(**(base | facts))


def test_a_new_resource_gets_its_objects_and_its_pods_at_once() -> None:
    made = plan(seen(resource(), database=look(due=35), database_digest="d"), Recollection(), 0)

    assert ["ServiceAccount", "Service", "Deployment", "PodDisruptionBudget"] == _kinds(made)
    assert 4 == _manifest(made)["spec"]["replicas"] == made.scale_to


def test_without_its_secret_no_pods_are_made_that_could_not_start() -> None:
    made = plan(seen(resource()), Recollection(), 0)

    assert "Deployment" not in _kinds(made)
    assert made.scale_to is None


def test_a_fleet_as_wanted_is_left_alone() -> None:
    of = resource()
    facts = seen(of, live=running(of, 4), database=look(due=35), database_digest="d")

    done = plan(facts, Recollection(), 0)

    assert ([], [], {}, None) == (done.apply, done.delete, done.deletion_costs, done.scale_to)


def test_the_scale_subresource_is_claimed_before_replicas_are_left_out() -> None:
    """Else removing the only owner's `replicas` would set the fleet to one pod."""
    of = resource()
    live = running(of, 4, manager="openworkflow-operator", digest="old")
    made = plan(seen(of, live=live, database=look(due=35), database_digest="d"), Recollection(), 0)

    assert 4 == _manifest(made)["spec"]["replicas"] == made.scale_to

    live = running(of, 4, digest="old")
    made = plan(seen(of, live=live, database=look(due=35), database_digest="d"), Recollection(), 0)

    assert "replicas" not in _manifest(made)["spec"]


def test_a_look_is_taken_into_account_once() -> None:
    of = resource(scaling={"scaleInDelaySeconds": 0})
    live, past = running(of, 3), Recollection()
    past = plan(seen(of, live=live, database=look(due=25), database_digest="d"), past, 0.0).next
    nothing = look(serial=2)
    for now in (1.0, 2.0, 3.0):
        past = plan(seen(of, live=live, database=nothing, database_digest="d"), past, now).next

    assert (1, 1) == (past.target, past.memory.empty_observations)


def test_a_database_that_cannot_be_read_changes_nothing() -> None:
    of = resource()
    problem = DatabaseProblem(DatabaseReason.UNREACHABLE, "no answer", serial=9)
    facts = seen(of, live=running(of, 7), database=problem, database_digest="d")

    done = plan(facts, Recollection(), 0)

    assert (None, 7) == (done.scale_to, done.next.target)


def test_a_secret_that_is_gone_does_not_roll_the_fleet_and_a_rotated_one_does() -> None:
    of = resource()
    facts = seen(of, live=running(of, 1), database=look(due=1))

    assert [] == plan(facts, Recollection(), 0).apply
    rotated = dataclasses.replace(facts, database_digest="new")
    assert ["Deployment"] == _kinds(plan(rotated, Recollection(), 0))


def test_idle_pods_are_ranked_first_before_the_fleet_shrinks() -> None:
    of = resource(scaling={"scaleInDelaySeconds": 0})
    pods = [Pod("a", ready=True), Pod("b", ready=True), Pod("c", ready=True, deletion_cost=2)]
    pods.append(Pod("gone", terminating=True))
    past = plan(seen(of, live=running(of, 3), database=look(due=25)), Recollection(), 0.0).next
    facts = seen(of, live=running(of, 3), pods=pods, database=look(running=3, serial=2, a=3))

    done = plan(facts, past, 10.0)

    assert 1 == done.scale_to
    assert {"a": 3, "c": 0} == done.deletion_costs


def test_somebody_elses_number_of_pods_is_reverted_and_said() -> None:
    of = resource()
    past = plan(seen(of, live=running(of, 3), database=look(due=25)), Recollection(), 0.0).next

    done = plan(seen(of, live=running(of, 9, manager="kubectl"), database=look(due=25)), past, 1.0)

    assert (3, "kubectl") == (done.scale_to, done.reverted)


def test_an_external_autoscaler_owns_the_number_of_pods() -> None:
    of = resource(scaling={"mode": "External"})
    made = plan(seen(of, database=look(due=35), database_digest="d"), Recollection(), 0)
    later = plan(seen(of, live=running(of, 9, manager="hpa"), database=look()), made.next, 1)

    assert "replicas" not in _manifest(made)["spec"]
    assert (None, None, "") == (made.scale_to, later.scale_to, later.reverted)


def test_a_pin_wins_and_zero_is_the_emergency_stop() -> None:
    of = resource(replicas=0)
    pods = [Pod("a", ready=True)]
    facts = seen(of, live=running(of, 5), pods=pods, database=look(due=90, running=9, a=9))

    assert 0 == plan(facts, Recollection(), 0).scale_to


def test_the_operator_wide_limit_holds_for_demand_and_pins() -> None:
    for of in (resource(scaling={"maxReplicas": 500}), resource(replicas=900)):
        facts = seen(of, live=running(of, 1), database=look(due=9000), replicas_limit=20)

        assert 20 == plan(facts, Recollection(), 0).scale_to


def test_a_paused_resource_and_the_younger_of_two_are_not_touched() -> None:
    facts = seen(resource(paused=True), live=running(resource(), 5), database=look(due=90))
    paused = plan(facts, Recollection(), 0)
    other = dataclasses.replace(facts, resource=resource(), conflict=Key("shop", "older"), live={})
    younger = plan(other, Recollection(), 0)

    assert all(([], None) == (list(p.apply), p.scale_to) for p in (paused, younger))


def test_what_is_no_longer_wanted_goes_but_never_what_somebody_else_made() -> None:
    before = resource(networkPolicy="Enabled")
    live = running(before, 1)
    after = resource()

    facts = seen(after, live=live, database=look(due=1), database_digest="d")
    assert [(kinds.NETWORK_POLICY, "orders-worker")] == plan(facts, Recollection(), 0).delete

    live[kinds.NETWORK_POLICY]["metadata"]["ownerReferences"] = []
    assert [] == plan(facts, Recollection(), 0).delete


def test_a_child_deleted_by_hand_comes_back() -> None:
    of = resource()
    live = running(of, 2)
    del live[kinds.SERVICE]
    facts = seen(of, live=live, database=look(due=15), database_digest="d")

    assert ["Service"] == _kinds(plan(facts, Recollection(), 0))


def test_a_saturated_fleet_says_so_until_it_is_not() -> None:
    of = resource()
    facts = seen(of, live=running(of, 10), database=look(due=900), database_digest="d")

    past = plan(facts, Recollection(), 0).next

    assert (Limit.MAX_REPLICAS, 90) == (past.limit, past.wanted)


def _kinds(made: Plan) -> list[str]:
    return [kind.name for kind, _ in made.apply]


def _manifest(made: Plan) -> dict[str, Any]:
    return next(manifest for kind, manifest in made.apply if kind is kinds.DEPLOYMENT)
