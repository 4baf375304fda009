"""The client: start runs, wait for their results, look at them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.backend.backend import BackendPostgres, CreatedRun, Page, RunFilter
from openworkflow.client import traced
from openworkflow.client.control import RunControl
from openworkflow.client.following import RunFollowing
from openworkflow.client.handle import RunDetails, RunHandle
from openworkflow.client.limits import LimitClient
from openworkflow.client.looks import looks_of
from openworkflow.client.plain import plain_page, plain_progress, plain_steps, sealed_runs
from openworkflow.client.repairs import UNCHANGED
from openworkflow.client.schedules import ScheduleClient
from openworkflow.client.streams import streams_of
from openworkflow.client.subject import checked_id
from openworkflow.codecs.payloads import Codecs, Payloads, checked_codecs
from openworkflow.core.asked import check_is, check_list
from openworkflow.core.errors import ConfigurationError, RunNotFound
from openworkflow.core.explanation import Explanation, explain, with_child
from openworkflow.core.filters import parse_filter
from openworkflow.core.guesses import AnswersGuesses, NotHere
from openworkflow.core.progress import NOTHING_TOLD
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT, codec_for
from openworkflow.core.shown import shown
from openworkflow.core.stopping import StopsAtExit
from openworkflow.core.unique import UniqueRule
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine import sealing
from openworkflow.engine.outgoing import outgoing
from openworkflow.engine.request import (
    ManyRunsOptions,
    Request,
    RunOptions,
    Sending,
    SharedOptions,
    TopicSending,
    check_options,
)
from openworkflow.engine.step import Step
from openworkflow.telemetry import tracing
from openworkflow.worker.options import WorkerSettings
from openworkflow.worker.worker import Worker

if TYPE_CHECKING:
    from openworkflow.client.blocking.client import SyncOpenWorkflow
    from openworkflow.client.blocking.opening import SyncOptions

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class OpenWorkflow(AnswersGuesses, RunControl, RunFollowing, StopsAtExit):
    """Starts and follows runs in the namespace of `backend`.

    `payload_limit` is the most bytes of JSON an input or result may have, as it is stored; `codec`
    encodes what is stored, for its workers too: one, or several, of openworkflow.codecs.
    """

    def __init__(
        self,
        backend: BackendPostgres,
        *,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        codec: Codecs | None = None,
    ) -> None:
        if isinstance(backend, str) or inspect.isawaitable(backend):
            raise ConfigurationError(
                "a client is made of a backend that has connected: "
                "OpenWorkflow(await BackendPostgres.connect(url))"
            )
        check_is("backend", backend, BackendPostgres, "one that has connected")
        check_is("payload_limit", payload_limit, int, "a number of bytes")
        codecs = checked_codecs(codec)
        super().__init__(backend, Payloads(codecs, backend.namespace_id, payload_limit))

    @staticmethod
    def sync(url: str, **options: "Unpack[SyncOptions]") -> "SyncOpenWorkflow":
        """Connect a client with the same methods for code that blocks: without `await`."""
        from openworkflow.client.blocking.opening import opened

        return opened(url, options)

    if not TYPE_CHECKING:
        connect = NotHere("it is OpenWorkflow(await BackendPostgres.connect(url))")

    def __repr__(self) -> str:
        return f"<OpenWorkflow of namespace {self._backend.namespace_id!r}>"

    @overload
    async def run_workflow(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> RunHandle[O]: ...

    @overload
    async def run_workflow(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> RunHandle[O]: ...

    @overload
    async def run_workflow(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> RunHandle[Any]: ...

    async def run_workflow(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any = None,
        **options: Unpack[RunOptions],
    ) -> RunHandle[Any]:
        """Start one run; it exists once this returns.

        A workflow whose code is elsewhere is given by name (and `version`); one that no worker
        serves is a warning in the log, with the names that are served. A second call with the
        same `idempotency_key` within 24 h returns the first run. `available_at` is a time, or a
        delay from now; `deadline` likewise. With `connection`, one of yours in a transaction, of
        asyncpg, psycopg, SQLAlchemy or Django, the run exists if and only if that commits.
        Raises InputValidationError or ConfigurationError, and then nothing is stored; so with a
        BackendError, but for ConnectionLost: the run may be stored, because the answer may be what
        was lost. With an `idempotency_key` the call asks again by itself, for a second or two, and
        is safe to repeat after that.
        """
        check_options("run_workflow", options, RunOptions)
        keys = [options.get("idempotency_key")]
        unique = UniqueRule.of(options.get("unique"), options.get("debounce"))
        if unique is not None and keys != [None]:
            raise ConfigurationError("give an idempotency_key, or unique=, or debounce=: one")
        return (await self._start(workflow, [input], keys, options, unique))[0]

    @overload
    async def run_workflows(
        self,
        workflow: Workflow[I, O],
        inputs: Sequence[I],
        **options: Unpack[ManyRunsOptions],
    ) -> list[RunHandle[O]]: ...

    @overload
    async def run_workflows(
        self, workflow: str, inputs: Sequence[Any], **options: Unpack[ManyRunsOptions]
    ) -> list[RunHandle[Any]]: ...

    async def run_workflows(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Sequence[Any],
        **options: Unpack[ManyRunsOptions],
    ) -> list[RunHandle[Any]]:
        """Start a run for each input, all or none; thousands in one call. See run_workflow."""
        check_options("run_workflows", options, ManyRunsOptions)
        check_list("inputs", inputs, "a list, with an input for each run")
        keys = options.get("idempotency_keys")
        keys = [None] * len(inputs) if keys is None else keys
        check_list("idempotency_keys", keys, "a list, with a key for each input")
        if len(keys) != len(inputs):
            raise ConfigurationError(
                f"{len(inputs)} inputs need as many idempotency_keys, not {len(keys)}"
            )
        return await self._start(workflow, inputs, keys, options)

    def handle(self, run_id: UUID, workflow: Workflow[I, O] | None = None) -> RunHandle[O]:
        """A handle of a run started elsewhere; `workflow` types its result."""
        if workflow is not None:
            check_is("workflow", workflow, Workflow, "a function decorated with @workflow")
        return RunHandle(
            self, checked_id(run_id), codec_for(Any) if workflow is None else workflow.output_codec
        )

    async def get_run(self, run_id: UUID) -> RunDetails:
        """A run with its step history. Raises RunNotFound."""
        run = await self.get_workflow_run(run_id)
        steps = await plain_steps(self._payloads, await self._backend.list_step_attempts(run_id))
        told = await self._backend.progress.of_runs([run_id])
        progress = await plain_progress(self._payloads, told.get(run_id, NOTHING_TOLD))
        # Only a step waits for a turn, so nobody who has not begun does.
        is_parked = run.status == RunStatus.PENDING and run.claim_no > 0
        turns = await self._backend.limits.turns.of_run(run_id) if is_parked else []
        return RunDetails(run, steps, progress, turns)

    async def explain(self, run_id: UUID) -> Explanation:
        """Why a run is not done: in one sentence, and as data. Raises RunNotFound.

        Of one that waits for a child, why that one is not done too, down to the last.
        """
        checked_id(run_id)
        told = explain(await self._backend.control.situation(run_id))
        child = next((wait.child for wait in told.waits if wait.child is not None), None)
        if child is None or child == run_id:
            return told
        try:
            return with_child(told, await self.explain(child))
        except RunNotFound:
            return told

    async def list_runs(
        self,
        run_filter: RunFilter | None = None,
        *,
        where: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of runs, newest first; `cursor` is the `next_cursor` of the page before.

        `where` is a filter as text, such as "status:failed tag.customer:acme started>2h". Raises
        ConfigurationError.
        """
        if where is not None:
            if run_filter is not None:
                raise ConfigurationError("give a run_filter or where, not both")
            page = await self._backend.filtering.page(parse_filter(where), limit, cursor)
            return await plain_page(self._payloads, page)
        if run_filter is not None and not isinstance(run_filter, RunFilter):
            raise ConfigurationError(f"give a RunFilter(...), or where=, not {shown(run_filter)}")
        page = await self._backend.list_workflow_runs(run_filter, limit, cursor)
        return await plain_page(self._payloads, page)

    @property
    def schedules(self) -> ScheduleClient:
        """Workflows that run again and again."""
        return ScheduleClient(self._backend.schedules, self._payloads, self.handle)

    @property
    def limits(self) -> LimitClient:
        """How many runs at once, and how many in some time."""
        return LimitClient(self._backend.limits)

    async def fork(
        self,
        run_id: UUID,
        *,
        from_step: str | None = None,
        input: Any = UNCHANGED,
        results: Mapping[str, Any] | None = None,
        version: str | None = UNCHANGED,
        build: str | None = None,
    ) -> RunHandle[Any]:
        """Start a new run with the history of another, whatever that comes to, up to a step.

        The results that came before `from_step`, by default the last recorded step, are those of
        the other run; that step and all after it are done anew. `results` take the place of
        recorded ones, by step: `results={"charge": "receipt-1"}` keeps all up to that step, and
        goes on as if it had returned this. The new run has the other's input, version and tags
        unless others are given, is bound to a `build` only if you name one, and says by
        `forked_from` where it is from. Raises RunNotFound, SerializationError, or
        ConfigurationError for a step that was not recorded.
        """
        forked = await traced.fork(
            self._backend,
            checked_id(run_id),
            from_step,
            input=input,
            results=results,
            version=version,
            build=build,
            payloads=self._payloads,
        )
        return RunHandle(self, forked.id, codec_for(Any), created=True)

    @overload
    async def signal(
        self, to: UUID | RunHandle[Any], name: str, value: Any = None, /, **options: Unpack[Sending]
    ) -> UUID: ...

    @overload
    async def signal(
        self, to: str, value: Any = None, /, **options: Unpack[TopicSending]
    ) -> UUID: ...

    async def signal(
        self,
        to: UUID | RunHandle[Any] | str,
        /,
        *message: Any,
        **options: Unpack[TopicSending],
    ) -> UUID:
        """Send `signal(run_id, "name", value)` to a run, or `signal("topic", value)` to a topic.

        A run takes what it was sent when it waits for a signal of that name: in the order of
        sending, each once, and however early it came. A topic reaches every run that waits for
        that name now, or begins to within `keep_for` (24 h), once. A second call with the same
        `idempotency_key` sends nothing; the message's id is answered in each case. With
        `connection`, one of yours in a transaction, it is sent if and only if that commits.
        Raises SerializationError or ConfigurationError; RunNotFound, or InvalidRunState for a run
        that has ended; BackendError.
        """
        check_options("signal", options, TopicSending)
        made = outgoing(
            to,
            message,
            idempotency_key=options.get("idempotency_key"),
            keep_for=options.get("keep_for"),
            limit=self._payloads.plain_limit,
        )
        if self._payloads.seals:
            made = await sealing.of_signal(self._payloads, made)
        with tracing.sending(self._backend.namespace_id, made.name, made.run_id):
            return await self._backend.messages.send(made, options.get("connection"))

    def new_worker(
        self,
        *,
        workflows: Sequence[Workflow[Any, Any]],
        concurrency: int = 100,
        **options: Unpack[WorkerSettings],
    ) -> Worker:
        """A worker for these workflows, not yet started; see Worker for the options."""
        check_options("new_worker", options, WorkerSettings, "workflows", "concurrency")
        options.setdefault("payload_limit", self._payloads.limit)
        options.setdefault("codec", self._payloads.codecs)
        return Worker(self._backend, workflows, concurrency=concurrency, **options)

    async def stop(self) -> None:
        """Stop listening for results and events, unless some are waited for.

        The backend is its opener's to stop, and ends what waits then.
        """
        await looks_of(self._backend).rest()
        await streams_of(self._backend).rest()

    async def _start(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Sequence[Any],
        keys: Sequence[str | None],
        options: SharedOptions,
        unique: UniqueRule | None = None,
    ) -> list[RunHandle[Any]]:
        wanted = Request(workflow, options, self._payloads.plain_limit).runs(inputs, keys)
        runs = await sealed_runs(self._payloads, wanted)
        if isinstance(workflow, Workflow) and workflow.limits:
            await self._backend.limits.ensure(workflow.limits.rules)
        created = await traced.create(self._backend, runs, options.get("connection"), unique)
        if isinstance(workflow, str):
            await self._misspellings.warn(workflow, options.get("version"))
        return [self._handle(workflow, each) for each in created]

    def _handle(self, workflow: Workflow[I, O] | str, created: CreatedRun) -> RunHandle[O]:
        codec = codec_for(Any) if isinstance(workflow, str) else workflow.output_codec
        return RunHandle(self, created.id, codec, created=created.created)
