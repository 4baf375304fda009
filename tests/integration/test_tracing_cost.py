"""What a traced run pays in the worker, counted: nothing in the database, few calls of ours."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from openworkflow import OpenWorkflow
from tests.helpers import StartWorker
from tests.integration import test_plain_costs as plain

CALLS_OF_A_RUN = 92
"""Of one step, ours: docs/tracing.md has this number."""
CALLS_OF_A_STEP = 37


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without processors: what it costs is the making of spans."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))


async def test_a_traced_run_makes_no_more_python_calls_of_ours_than_its_budget(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    one = await plain._calls_of_each(plain.one_step, ow, start_worker, sql)
    eleven = await plain._calls_of_each(plain.eleven_steps, ow, start_worker, sql)

    assert any("opentelemetry" in code.co_filename for code in one)
    assert plain._ours(one) <= CALLS_OF_A_RUN, plain._listed(one)
    assert plain._ours(eleven) - plain._ours(one) <= 10 * CALLS_OF_A_STEP


async def test_traced_runs_share_their_statements_which_name_no_further_table(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    sql: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = await plain._sent(ow, start_worker, sql, monkeypatch)

    flushed = [plain._tables(each) for each in sent if "step_attempts" in plain._tables(each)]
    plain_tables = {"workflow_runs", "step_attempts", "workflow_pauses", "workflow_builds"}
    assert flushed
    assert set().union(*flushed) <= plain_tables
    assert sum(sent.values()) <= plain.RUNS / 4, sent.most_common(5)
