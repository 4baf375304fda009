"""What is deleted and stored in the database of a resource, and when nothing is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.database.dsn import parse
from openworkflow_operator.database.upkeep import Upkeep
from tests.unit.operator.test_visit import resource

PLACE = (parse("postgresql://u:p@db:5432/shop"), "public", "shop")


class Told:
    """Takes down what it is told to keep and to forget."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def keep(self, key: object, wanted: object) -> None:
        self.heard.append("keep")

    def forget(self, key: object) -> None:
        self.heard.append("forget")


def attended(of: WorkflowNamespace, place: Any) -> list[str]:
    pruner = Told()
    Upkeep(cast(Any, pruner), cast(Any, Told())).attend(of, place, None)
    return pruner.heard


@pytest.mark.parametrize(
    ("paused", "place", "heard"),
    [(False, PLACE, ["keep"]), (True, PLACE, ["forget"]), (False, None, ["forget"])],
)
def test_runs_are_deleted_unless_it_is_paused_or_not_known_where(
    paused: bool, place: Any, heard: list[str]
) -> None:
    of = resource("Pinned", retention={"succeededSeconds": 60}, paused=paused)

    assert heard == attended(of, place)
