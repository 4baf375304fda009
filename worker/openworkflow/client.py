"""The client: start runs, wait for their results, look at them, cancel and retry them."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, CreatedRun, NewRun, Page, RunFilter
from openworkflow.backend.notifications import Listener
from openworkflow.core.duration import Duration, parse_duration
from openworkflow.core.errors import (
    ConfigurationError,
    ResultTimeout,
    RunNotFound,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.failure import Failure
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT, Codec, codec_for
from openworkflow.core.step_attempt import StepAttempt
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.worker.worker import Worker

if TYPE_CHECKING:
    import asyncpg

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

FIRST_POLL_SECONDS = 0.05
POLL_SECONDS = 2.0
"""Under the wake-ups: the longest pause between two looks at a run."""
KEY_LIMIT = 500


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run and its step attempts in the order they began."""

    run: WorkflowRun
    steps: list[StepAttempt]


class RunHandle(Generic[O]):
    """A run that was started; `created` is False if its idempotency key had started it before."""

    def __init__(
        self, ow: "OpenWorkflow", run_id: UUID, codec: Codec[O], *, created: bool = False
    ) -> None:
        self.id, self.created = run_id, created
        self._ow, self._codec = ow, codec

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def run(self) -> WorkflowRun:
        """The row as it is now. Raises RunNotFound."""
        return await self._ow.get_workflow_run(self.id)

    async def status(self) -> RunStatus:
        """Where the run stands. Raises RunNotFound."""
        return (await self.run()).status

    async def cancel(self) -> None:
        """See OpenWorkflow.cancel."""
        await self._ow.cancel(self.id)

    async def result(self, timeout: Duration | None = None) -> O:
        """Wait for the run to end, and return what its function returned.

        Raises WorkflowFailed, WorkflowCanceled, RunNotFound, and ResultTimeout after `timeout`
        (seconds, timedelta or text such as "30s"); the run goes on then.
        """
        run = await self._ow.wait(self.id, timeout)
        if run.status is RunStatus.CANCELED:
            raise WorkflowCanceled(run.id)
        if run.status is RunStatus.FAILED:
            raise WorkflowFailed(run.id, Failure.from_object(run.error))
        return self._codec.validate_stored(run.output)


class OpenWorkflow:
    """Starts and follows runs in the namespace of `backend`.

    `payload_limit` is the most bytes of JSON an input or result may have.
    """

    def __init__(
        self, backend: BackendPostgres, *, payload_limit: int = DEFAULT_PAYLOAD_LIMIT
    ) -> None:
        self._backend, self._payload_limit = backend, payload_limit
        self._listener: Listener | None = None
        self._listening = asyncio.Lock()

    async def run_workflow(
        self,
        workflow: Workflow[I, O] | str,
        input: Any = None,
        *,
        version: str | None = None,
        idempotency_key: str | None = None,
        available_at: datetime | Duration | None = None,
        deadline: datetime | Duration | None = None,
        connection: "asyncpg.Connection[Any] | None" = None,
    ) -> RunHandle[O]:
        """Start one run; it exists once this returns.

        A workflow whose code is elsewhere is given by name (and `version`). A second call with the
        same `idempotency_key` within 24 h returns the first run. `available_at` is a time, or a
        delay from now; `deadline` likewise. With `connection`, an asyncpg connection of yours in a
        transaction, the run exists if and only if that transaction commits.
        Raises InputValidationError, ConfigurationError or BackendError, and then nothing is stored.
        """
        runs = [self._new_run(workflow, input, version, idempotency_key, available_at, deadline)]
        created = await self._backend.create_workflow_runs(runs, connection=connection)
        return self._handle(workflow, created[0])

    async def run_workflows(
        self,
        workflow: Workflow[I, O] | str,
        inputs: Sequence[Any],
        *,
        version: str | None = None,
        idempotency_keys: Sequence[str | None] | None = None,
        available_at: datetime | Duration | None = None,
        deadline: datetime | Duration | None = None,
        connection: "asyncpg.Connection[Any] | None" = None,
    ) -> list[RunHandle[O]]:
        """Start a run for each input, all or none; thousands in one call. See run_workflow."""
        keys = idempotency_keys or [None] * len(inputs)
        if len(keys) != len(inputs):
            raise ConfigurationError(
                f"{len(inputs)} inputs need as many idempotency_keys, not {len(keys)}"
            )
        runs = [
            self._new_run(workflow, each, version, key, available_at, deadline)
            for each, key in zip(inputs, keys, strict=True)
        ]
        created = await self._backend.create_workflow_runs(runs, connection=connection)
        return [self._handle(workflow, each) for each in created]

    def handle(self, run_id: UUID, workflow: Workflow[I, O] | None = None) -> RunHandle[O]:
        """A handle of a run started elsewhere; `workflow` types its result."""
        return RunHandle(
            self, run_id, codec_for(Any) if workflow is None else workflow.output_codec
        )

    async def get_workflow_run(self, run_id: UUID) -> WorkflowRun:
        """A run as it is now. Raises RunNotFound."""
        run = await self._backend.get_workflow_run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def get_run(self, run_id: UUID) -> RunDetails:
        """A run with its step history. Raises RunNotFound."""
        run = await self.get_workflow_run(run_id)
        return RunDetails(run, await self._backend.list_step_attempts(run_id))

    async def list_runs(
        self, run_filter: RunFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """A page of runs, newest first; `cursor` is the `next_cursor` of the page before."""
        return await self._backend.list_workflow_runs(run_filter, limit, cursor)

    async def cancel(self, run_id: UUID) -> WorkflowRun:
        """Cancel a run. Its async code hears at once; a thread is left to end, in vain.

        Raises RunNotFound, or InvalidRunState if it has succeeded or failed.
        """
        return await self._backend.cancel_workflow_run(run_id)

    async def retry(self, run_id: UUID) -> WorkflowRun:
        """Start a failed or canceled run again, from the step that failed.

        Raises RunNotFound or InvalidRunState.
        """
        return await self._backend.retry_workflow_run(run_id)

    def new_worker(
        self, *, workflows: Sequence[Workflow[Any, Any]], concurrency: int = 100, **options: Any
    ) -> Worker:
        """A worker for these workflows, not yet started; see Worker for the options."""
        options.setdefault("payload_limit", self._payload_limit)
        return Worker(self._backend, workflows, concurrency=concurrency, **options)

    async def stop(self) -> None:
        """Stop listening for results. The backend is its opener's to stop."""
        if self._listener is not None:
            await self._listener.__aexit__(None, None, None)
            self._listener = None

    async def wait(self, run_id: UUID, timeout: Duration | None = None) -> WorkflowRun:
        """The run once it has finished, however. Raises RunNotFound or ResultTimeout."""
        limit = None if timeout is None else parse_duration(timeout).total_seconds()
        give_up = None if limit is None else time.monotonic() + limit
        listener = await self._listen()
        pause = FIRST_POLL_SECONDS
        while True:
            # Subscribe before looking, or an end in between would be missed.
            finished = listener.on_finished(run_id)
            try:
                run = await self.get_workflow_run(run_id)
                if run.status.finished:
                    return run
                left = float("inf") if give_up is None else give_up - time.monotonic()
                if limit is not None and left <= 0:
                    raise ResultTimeout(run_id, limit)
                seconds = min(left, pause * random.uniform(0.75, 1.0))
                await asyncio.wait({finished}, timeout=seconds)
            finally:
                finished.cancel()
            pause = min(pause * 2, POLL_SECONDS)

    async def _listen(self) -> Listener:
        async with self._listening:
            if self._listener is None:
                listener = self._backend.listen()
                await listener.__aenter__()
                self._backend.on_stop(self.stop)
                self._listener = listener
            return self._listener

    def _handle(self, workflow: Workflow[I, O] | str, created: CreatedRun) -> RunHandle[O]:
        codec = codec_for(Any) if isinstance(workflow, str) else workflow.output_codec
        return RunHandle(self, created.id, codec, created=created.created)

    def _new_run(
        self,
        workflow: Workflow[Any, Any] | str,
        value: Any,
        version: str | None,
        key: str | None,
        available_at: datetime | Duration | None,
        deadline: datetime | Duration | None,
    ) -> NewRun:
        _check_text("idempotency_key", key, KEY_LIMIT)
        at, delay = _moment("available_at", available_at)
        if isinstance(workflow, Workflow):
            name, version = workflow.name, workflow.version if version is None else version
            deadline = workflow.deadline if deadline is None else deadline
        else:
            name = workflow
        _check_text("workflow", name, 200)
        _check_text("version", version, 200)
        deadline_at, deadline_in = _moment("deadline", deadline)
        _check_order(at, delay, deadline_at, deadline_in)
        return NewRun(
            workflow_name=name,
            version=version,
            input=self._encode(workflow, value),
            idempotency_key=key,
            available_at=at,
            delay=delay,
            deadline_at=deadline_at,
            deadline=deadline_in,
        )

    def _encode(self, workflow: Workflow[Any, Any] | str, value: Any) -> str | None:
        if isinstance(workflow, str):
            return codec_for(Any).encode(value, "input", self._payload_limit)
        if not workflow.takes_input:
            if value is not None:
                raise ConfigurationError(f"workflow {workflow.name!r} takes no input")
            return None
        codec = workflow.input_codec
        return codec.encode(codec.validate(value, "input"), "input", self._payload_limit)


def _check_text(what: str, text: str | None, limit: int) -> None:
    if text is not None and (not 0 < len(text) <= limit or "\0" in text or not _is_unicode(text)):
        raise ConfigurationError(
            f"{what} must be text of 1 to {limit} characters without NUL, not {text!r:.80}"
        )


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _moment(
    what: str, value: datetime | Duration | None
) -> tuple[datetime | None, timedelta | None]:
    """A point in time, or a length of time from now."""
    if value is None:
        return None, None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{what} must carry a time zone, for example tzinfo=UTC")
        return value, None
    return None, parse_duration(value)


def _check_order(
    at: datetime | None,
    delay: timedelta | None,
    deadline_at: datetime | None,
    deadline_in: timedelta | None,
) -> None:
    """Refuse a run whose deadline is over before it may start."""
    if deadline_at is None and deadline_in is None:
        return
    now = datetime.now(UTC)  # only to compare two wishes; the database's clock decides later
    try:
        start = at or now + (delay or timedelta(0))
        end = deadline_at or now + (deadline_in or timedelta(0))
    except OverflowError:
        raise ConfigurationError(
            "available_at and deadline must lie before the year 9999"
        ) from None
    if end <= start:
        raise ConfigurationError("the deadline must be later than available_at, and than now")
