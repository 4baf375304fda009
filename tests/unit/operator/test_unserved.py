"""Runs that nobody serves: one pod is asked for each code, and its answer is heeded."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from openworkflow_operator.api import kinds
from openworkflow_operator.api.names import SCALER_FIELD_MANAGER
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.database.answers import workflow_names
from openworkflow_operator.database.diagnosis import UnusableAnswer
from openworkflow_operator.decide.observation import Observation
from openworkflow_operator.decide.planner import Observed, Recollection, plan
from openworkflow_operator.decide.pods import Pod
from openworkflow_operator.decide.scaling import Demand, Limit
from openworkflow_operator.decide.unserved import ANSWER_SECONDS
from openworkflow_operator.desired.resources import wanted_objects
from openworkflow_operator.desired.workload import build_of

ROOT, NOW = Path(__file__).parents[3], datetime(2030, 1, 1, tzinfo=UTC)
ONE = Demand(0, 0.0, 0, unserved=1, oldest_unserved_age=7200, unserved_names=("gone",))
OTHERS = replace(ONE, unserved=2, unserved_names=("gone", "new"))


def resource(image: str = "app:1", **scaling: Any) -> WorkflowNamespace:
    raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1", "generation": 1}
    raw["spec"] |= {"scaling": {"scaleInDelaySeconds": 0, **scaling}}
    raw["spec"]["worker"]["image"] = image
    return WorkflowNamespace.parse(raw)


class Fleet:
    """A fleet that follows at once; its pods are all of the template, unless told otherwise."""

    def __init__(self, of: WorkflowNamespace) -> None:
        self.of, self.past, self.replicas = of, Recollection(), 0
        self.now, self.updated = 0.0, True

    def look(self, demand: Demand, seconds: float = 5.0) -> tuple[int, Limit]:
        """Decide on a look some seconds after the last one; the number of pods and why."""
        self.now += seconds
        live: Any = copy.deepcopy(wanted_objects(self.of, "d", service_monitors_exist=False))
        deployment = live[kinds.DEPLOYMENT]
        deployment["spec"]["replicas"] = self.replicas
        owned = {"manager": SCALER_FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        deployment["metadata"] |= {"managedFields": [owned], "generation": 3}
        deployment["status"] = {
            "observedGeneration": 3,
            "replicas": self.replicas,
            "readyReplicas": self.replicas,
            "updatedReplicas": self.replicas if self.updated else 0,
        }
        pods = [Pod(str(n), ready=True) for n in range(self.replicas)]
        seen = Observation(demand, NOW, int(self.now * 10))
        facts = Observed(self.of, build_of(self.of), live, pods, seen, 1000, database_digest="d")
        done = plan(facts, self.past, self.now)
        self.past = done.next
        self.replicas = self.replicas if done.scale_to is None else done.scale_to
        return self.replicas, done.next.limit

    def looks(self, demand: Demand, seconds: float) -> tuple[int, Limit]:
        """Look every five seconds for so long."""
        found = self.look(demand)
        for _ in range(int(seconds / 5)):
            found = self.look(demand)
        return found


def test_one_forgotten_run_keeps_no_pod_for_ever_and_is_told() -> None:
    fleet = Fleet(resource())
    assert (1, Limit.NONE) == fleet.look(ONE)
    assert (1, Limit.NONE) == fleet.looks(ONE, ANSWER_SECONDS - 10)

    assert (0, Limit.RUNS_NOT_PICKED_UP) == fleet.looks(ONE, 30)
    assert (0, Limit.RUNS_NOT_PICKED_UP) == fleet.looks(ONE, 3600)
    assert (0, Limit.NONE) == fleet.look(replace(ONE, unserved=0, unserved_names=()))


def test_another_code_and_other_workflows_are_asked_again() -> None:
    fleet = Fleet(resource())
    assert 0 == fleet.looks(ONE, 100)[0]
    assert 1 == fleet.look(OTHERS)[0]
    assert 0 == fleet.looks(OTHERS, 100)[0]

    fleet.of = resource("app:2")
    assert 1 == fleet.look(OTHERS)[0]


def test_pods_of_an_older_template_give_no_answer() -> None:
    fleet = Fleet(resource())
    fleet.look(ONE)
    fleet.updated = False
    assert (1, Limit.NONE) == fleet.looks(ONE, 600)

    fleet.updated = True
    assert 0 == fleet.looks(ONE, 100)[0]


def test_beside_runs_that_are_served_they_are_told_and_change_nothing() -> None:
    fleet = Fleet(resource())
    busy = replace(ONE, due=0, running=25)
    without = replace(busy, unserved=0, unserved_names=())
    expected = Fleet(resource()).looks(without, 100)[0]

    assert (expected, Limit.RUNS_NOT_PICKED_UP) == fleet.looks(busy, 100)


def test_the_least_that_the_owner_wants_stays() -> None:
    assert (2, Limit.RUNS_NOT_PICKED_UP) == Fleet(resource(minReplicas=2)).looks(ONE, 100)


def test_names_are_told_only_if_they_are_names() -> None:
    assert ("(a name that is not shown)", "a", "b 1") == workflow_names('["b 1", "a", "<b>"]')
    assert 5 >= len(workflow_names(str([str(n) for n in range(50)]).replace("'", '"')))
    for odd in ("{}", "[1]", None, "[", "[" * 100_000):
        with pytest.raises(UnusableAnswer):
            workflow_names(odd)
