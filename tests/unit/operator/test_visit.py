"""A visit works with what it found out at its beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.cluster.credentials import Credentials
from openworkflow_operator.database.dsn import parse
from openworkflow_operator.decide.planner import Observed
from openworkflow_operator.desired import workload
from openworkflow_operator.desired.workload import build_of
from openworkflow_operator.visits import visit as module
from openworkflow_operator.visits.visit import Remembered, Visit

ROOT = Path(__file__).parents[3]
CREDENTIALS = Credentials(parse("postgresql://u:p@db.example/shop"), "d")


def resource(strategy: str, **spec: Any) -> WorkflowNamespace:
    raw = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1", "generation": 1}
    raw["spec"] |= {"rollout": {"strategy": strategy}} | spec
    return WorkflowNamespace.parse(raw)


def begin(of: WorkflowNamespace, credentials: Credentials = CREDENTIALS) -> Visit:
    return Visit.begin(of, credentials, Remembered(of.uid))


@pytest.mark.parametrize("strategy", ["Pinned", "RollingUpdate"])
def test_the_build_is_computed_once(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """It is a digest of the rendered pod template, and was computed five times."""
    computed = []

    def counted(of: WorkflowNamespace) -> str:
        computed.append(of)
        return build_of(of)

    monkeypatch.setattr(module, "build_of", counted)
    monkeypatch.setattr(workload, "build_of", counted)
    of = resource(strategy, retention={"succeededSeconds": 60})

    made = begin(of)
    target = made.target(10)
    observed = Observed(of, made.build, {}, (), None, 10, database_digest="d")
    decided = made.decide(observed, made.remembered.past, 0)

    assert [of] == computed
    assert target is not None
    pinned = made.build if strategy == "Pinned" else None
    assert pinned == target.question.build == made.spared_build
    assert f"orders-worker{'-' + pinned if pinned else ''}" == decided.deployment


def test_nothing_is_looked_at_or_deleted_while_it_is_not_known_where() -> None:
    made = begin(resource("Pinned", retention={"succeededSeconds": 60}), Credentials())

    assert (None, None) == (made.place, made.target(10))
