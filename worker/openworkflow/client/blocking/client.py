"""See client/client.py; `python -m tools.sync_client` wrote this from it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Unpack, overload
from uuid import UUID

from openworkflow.backend.backend import Page, RunFilter
from openworkflow.client.blocking.base import SyncBase, given
from openworkflow.client.blocking.control import SyncRunControl
from openworkflow.client.blocking.following import SyncRunFollowing
from openworkflow.client.blocking.handle import SyncRunHandle
from openworkflow.client.blocking.limits import SyncLimitClient
from openworkflow.client.blocking.schedules import SyncScheduleClient
from openworkflow.client.handle import RunDetails
from openworkflow.client.repairs import UNCHANGED
from openworkflow.core.explanation import Explanation
from openworkflow.core.workflow import Workflow
from openworkflow.engine.request import (
    ManyRunsOptions,
    RunOptions,
    Sending,
    TopicSending,
)
from openworkflow.engine.step import Step

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class SyncOpenWorkflow(SyncRunControl, SyncRunFollowing, SyncBase):
    """Starts and follows runs from code that blocks; made by `OpenWorkflow.sync`."""

    @overload
    def run_workflow(
        self,
        workflow: Workflow[None, O] | Workflow[Step, O],
        input: None = None,
        **options: Unpack[RunOptions],
    ) -> SyncRunHandle[O]: ...

    @overload
    def run_workflow(
        self, workflow: Workflow[I, O], input: I, **options: Unpack[RunOptions]
    ) -> SyncRunHandle[O]: ...

    @overload
    def run_workflow(
        self, workflow: str, input: Any = None, **options: Unpack[RunOptions]
    ) -> SyncRunHandle[Any]: ...

    def run_workflow(
        self, workflow: Workflow[Any, Any] | str, input: Any = None, **options: Unpack[RunOptions]
    ) -> SyncRunHandle[Any]:
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
        return SyncRunHandle(
            self._line,
            self._line.call(lambda ow: ow.run_workflow(workflow, input, **options), options),
        )

    @overload
    def run_workflows(
        self, workflow: Workflow[I, O], inputs: Sequence[I], **options: Unpack[ManyRunsOptions]
    ) -> list[SyncRunHandle[O]]: ...

    @overload
    def run_workflows(
        self, workflow: str, inputs: Sequence[Any], **options: Unpack[ManyRunsOptions]
    ) -> list[SyncRunHandle[Any]]: ...

    def run_workflows(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Sequence[Any],
        **options: Unpack[ManyRunsOptions],
    ) -> list[SyncRunHandle[Any]]:
        """Start a run for each input, all or none; thousands in one call. See run_workflow."""
        return [
            SyncRunHandle(self._line, each)
            for each in self._line.call(
                lambda ow: ow.run_workflows(workflow, inputs, **options), options
            )
        ]

    def handle(self, run_id: UUID, workflow: Workflow[I, O] | None = None) -> SyncRunHandle[O]:
        """A handle of a run started elsewhere; `workflow` types its result."""
        return SyncRunHandle(self._line, self._line.get(lambda ow: ow.handle(run_id, workflow)))

    def get_run(self, run_id: UUID) -> RunDetails:
        """A run with its step history. Raises RunNotFound."""
        return self._line.call(lambda ow: ow.get_run(run_id))

    def explain(self, run_id: UUID) -> Explanation:
        """Why a run is not done: in one sentence, and as data. Raises RunNotFound.

        Of one that waits for a child, why that one is not done too, down to the last.
        """
        return self._line.call(lambda ow: ow.explain(run_id))

    def list_runs(
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
        return self._line.call(
            lambda ow: ow.list_runs(run_filter, where=where, limit=limit, cursor=cursor)
        )

    @property
    def schedules(self) -> SyncScheduleClient:
        """Workflows that run again and again."""
        return SyncScheduleClient(self._line)

    @property
    def limits(self) -> SyncLimitClient:
        """How many runs at once, and how many in some time."""
        return SyncLimitClient(self._line)

    def fork(
        self,
        run_id: UUID,
        *,
        from_step: str | None = None,
        input: Any = UNCHANGED,
        results: Mapping[str, Any] | None = None,
        version: str | None = UNCHANGED,
        build: str | None = None,
    ) -> SyncRunHandle[Any]:
        """Start a new run with the history of another, whatever that comes to, up to a step.

        The results that came before `from_step`, by default the last recorded step, are those of
        the other run; that step and all after it are done anew. `results` take the place of
        recorded ones, by step: `results={"charge": "receipt-1"}` keeps all up to that step, and
        goes on as if it had returned this. The new run has the other's input, version and tags
        unless others are given, is bound to a `build` only if you name one, and says by
        `forked_from` where it is from. Raises RunNotFound, SerializationError, or
        ConfigurationError for a step that was not recorded.
        """
        return SyncRunHandle(
            self._line,
            self._line.call(
                lambda ow: ow.fork(
                    run_id,
                    from_step=from_step,
                    input=input,
                    results=results,
                    version=version,
                    build=build,
                )
            ),
        )

    @overload
    def signal(
        self,
        to: UUID | SyncRunHandle[Any],
        name: str,
        value: Any = None,
        /,
        **options: Unpack[Sending],
    ) -> UUID: ...

    @overload
    def signal(self, to: str, value: Any = None, /, **options: Unpack[TopicSending]) -> UUID: ...

    def signal(
        self, to: UUID | SyncRunHandle[Any] | str, /, *message: Any, **options: Unpack[TopicSending]
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
        return self._line.call(lambda ow: ow.signal(given(to), *message, **options), options)
