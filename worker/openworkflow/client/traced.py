"""Runs that are started in a trace: each is stored with it, for the span of its execution."""

from collections.abc import Sequence
from typing import Any

from openworkflow.backend.backend import BackendPostgres, CreatedRun, NewRun
from openworkflow.backend.connection import Connection
from openworkflow.client import repairs
from openworkflow.core.unique import UniqueRule
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.telemetry import tracing


async def create(
    backend: BackendPostgres,
    runs: Sequence[NewRun],
    connection: Connection | None,
    unique: UniqueRule | None,
) -> list[CreatedRun]:
    """See BackendPostgres.create_workflow_runs; where nobody traces it is that, and no more."""
    if not runs:
        return await backend.create_workflow_runs(runs, connection=connection, unique=unique)
    about = runs[0].workflow_name, runs[0].version
    with tracing.creating(backend.namespace_id, *about, len(runs)) as span:
        if span is not None and (context := span.context) is not None:
            runs = [run._replace(context=context) for run in runs]
        created = await backend.create_workflow_runs(runs, connection=connection, unique=unique)
        if span is not None:
            span.made([each.id for each in created])
    return created


async def fork(backend: BackendPostgres, *asked: Any, **options: Any) -> WorkflowRun:
    """See repairs.fork."""
    with tracing.forking(backend.namespace_id) as span:
        context = None if span is None else span.context
        forked = await repairs.fork(backend, *asked, **options, context=context)
        if span is not None:
            span.made([forked.id])
    return forked
