"""Runs that go on from one of their steps: retried in place, or forked as a new run."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.control import Fork
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.asked import check_is
from openworkflow.core.errors import ConfigurationError, RunNotFound
from openworkflow.core.ids import uuid7
from openworkflow.core.names import NAME_LIMIT, storable_text, valid_build_id
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.serialization import codec_of
from openworkflow.core.workflow_run import WorkflowRun
from openworkflow.engine.forking import keep
from openworkflow_contract.recurrence import may_be_occurrence

UNCHANGED: Any = object()
"""Stands for the input, or the version, of the run that is forked."""
_TRIES = 5
"""A run that continues as new has another history, which is then looked at."""


async def retry_from(backend: BackendPostgres, run_id: UUID, from_step: str) -> WorkflowRun:
    """See OpenWorkflow.retry."""
    await backend.control.check_retry(run_id)
    _, steps = await _history(backend, run_id)
    return await backend.control.retry(run_id, keep(steps, from_step).rows)


async def fork(
    backend: BackendPostgres,
    run_id: UUID,
    from_step: str | None,
    *,
    input: Any,
    results: Mapping[str, Any] | None,
    version: str | None,
    build: str | None,
    payloads: Payloads,
    context: str | None = None,
) -> WorkflowRun:
    """See OpenWorkflow.fork; `context` is that of NewRun."""
    _check_asked(from_step, results, version)
    forked_id = uuid7()
    if may_be_occurrence(run_id):  # by such an id a worker knows to ask of which instant it is
        forked_id = uuid5(run_id, str(forked_id))
    texts = await _encoded(results or {}, payloads)
    has_input = input is not UNCHANGED
    text = await _input(backend, run_id, input, payloads) if has_input else None
    for _ in range(_TRIES):
        history_from, steps = await _history(backend, run_id)
        kept = keep(steps, from_step, texts)
        forked = await backend.control.fork(
            run_id,
            Fork(
                id=forked_id,
                history_from=history_from,
                has_version=version is not UNCHANGED,
                version=None if version is UNCHANGED else version,
                has_input=has_input,
                input=text,
                build=None if build is None else valid_build_id(build),
                rows=kept.rows,
                overridden=kept.overridden,
                context=context,
            ),
        )
        if forked is not None:
            return forked
    raise ConfigurationError(f"workflow run {run_id} continues as new again and again; cancel it")


async def _encoded(results: Mapping[str, Any], payloads: Payloads) -> dict[str, str | None]:
    found = {}
    for name, value in results.items():
        text = codec_of(value).encode(value, "result of step", payloads.plain_limit, name)
        found[name] = await payloads.seal(text, "step", name)
    return found


async def _input(
    backend: BackendPostgres, run_id: UUID, value: Any, payloads: Payloads
) -> str | None:
    """Another input, as it is to be stored: bound to the name of the run's workflow."""
    text = codec_of(value).encode(value, "input", payloads.plain_limit)
    if not payloads.seals:
        return text
    run = await backend.get_workflow_run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    return await payloads.seal(text, "input", run.workflow_name)


def _check_asked(from_step: object, results: object, version: Any) -> None:
    if version is not UNCHANGED and version is not None:
        storable_text("version", version, NAME_LIMIT)
    if from_step is not None:
        check_is("from_step", from_step, str, "the key of a step")
    if results is not None:
        check_is("results", results, Mapping, "results by the keys of steps")


async def _history(backend: BackendPostgres, run_id: UUID) -> tuple[int, list[RecordedStep]]:
    """Where the history begins, and its rows; if it changes in between, the fork finds out."""
    history_from = await backend.control.history_from(run_id)
    if history_from is None:
        raise RunNotFound(run_id)
    session = await backend.open_session(connections=1)
    try:
        return history_from, (await session.load_histories([run_id]))[run_id]
    finally:
        await session.close()
