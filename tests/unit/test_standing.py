"""Where a run stands, in a word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from openworkflow.core.served import Served
from openworkflow.core.standing import RETRY, Standing, word
from openworkflow.core.workflow_run import RunStatus, WorkflowRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = WorkflowRun(
    id=UUID(int=1),
    namespace_id="default",
    workflow_name="ship",
    version=None,
    status=RunStatus.PENDING,
    worker_id=None,
    config={},
    context=None,
    input=None,
    output=None,
    error=None,
    available_at=NOW,
    deadline_at=None,
    created_at=NOW,
    completed_at=None,
    claim_no=1,
    started_at=NOW,
)
AFRESH = replace(RUN, started_at=None)
SERVED = Served(versions=(("ship", ""),))
OTHERS = Served(versions=(("bill", ""),))


def standing(*waits: str, due: bool = False, held: bool = False) -> Standing:
    return Standing(due=due, held=held, waits=waits)


@pytest.mark.parametrize(
    ("run", "known", "served", "said"),
    [
        (RUN, standing(due=True), SERVED, "queued"),
        (RUN, standing(due=True), Served(), "queued"),  # what is not known is not said
        (RUN, standing(due=True), OTHERS, "unserved"),
        (RUN, standing(due=True, held=True), OTHERS, "paused"),
        (RUN, standing("sleep"), OTHERS, "sleeping"),
        (RUN, standing("sleep", RETRY), SERVED, "retrying"),
        (RUN, standing(RETRY, "signal"), SERVED, "waiting"),
        (replace(RUN, error={"type": "E"}), standing(), SERVED, "retrying"),
        (RUN, standing(), SERVED, "waiting"),
        (AFRESH, standing(), SERVED, "scheduled"),  # claimed, and set aside for the next instant
        (AFRESH, replace(standing(), queued=True), SERVED, "waiting"),
        (replace(RUN, pinned=True), standing(due=True), SERVED, "build"),
        (
            replace(RUN, pinned=True),
            replace(standing(due=True), build_known=False),
            SERVED,
            "unserved",
        ),
        (replace(RUN, status=RunStatus.RUNNING), standing(held=True), SERVED, "running"),
        (replace(RUN, status=RunStatus.RUNNING), standing(due=True), SERVED, "lost"),
        (replace(RUN, status=RunStatus.FAILED), None, OTHERS, "failed"),
        (RUN, None, OTHERS, "pending"),  # it was deleted, or ended, between two looks
    ],
)
def test_a_run_stands_where_the_first_thing_that_has_to_change_is(
    run: WorkflowRun, known: Standing | None, served: Served, said: str
) -> None:
    assert said == word(run, known, served)
