"""A run that a workflow asks for as its child, checked, and as the row that starts it."""

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args
from uuid import UUID

from openworkflow.backend.records import NewChild
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.ids import depth_of
from openworkflow.core.priority import inherited
from openworkflow.core.serialization import Codec, codec_for
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow
from openworkflow.engine.request import Moment, Request, check_options

OnClose = Literal["cancel", "abandon"]

MOST_DEEP = 32
"""Runs above a child: a workflow that starts itself forever is stopped here."""


class ChildOptions(TypedDict, total=False):
    """Options of a child."""

    version: str | None
    """The version of the workflow; its own where it is given with its code."""
    available_at: Moment | None
    """When it may start; by default at once."""
    deadline: Moment | None
    """When it is failed unless it has ended; never later than that of its parent."""
    tags: Mapping[str, str] | None
    """Beside those of its parent, which it has too."""
    priority: int
    """Priority of the child: the parent's, if that is higher."""


class ChildRequest:
    """A run that a workflow asks for, checked when it is asked for."""

    def __init__(
        self,
        execution: Any,
        workflow: Workflow[Any, Any] | str,
        value: Any,
        options: ChildOptions,
        on_close: OnClose = "cancel",
    ) -> None:
        self._execution, self.workflow, self._value = execution, workflow, value
        self._options, self._on_close = options, on_close
        self._checked: NewChild | None = None
        self._sealed: NewChild | None = None

    @property
    def codec(self) -> Codec[Any]:
        """Codec of the child's result."""
        return codec_of(self.workflow)

    @property
    def cancels(self) -> bool:
        """Whether the child is canceled once nobody waits for it."""
        return self._on_close == "cancel"

    def check(self, call: str = "step.map", *others: str) -> None:
        """Refuse what could not be started. Raises ConfigurationError or InputValidationError.

        `others` are options of the call beside those of a child, for the TypeError of one that it
        does not have.
        """
        if self._on_close not in get_args(OnClose):
            raise ConfigurationError(
                f"parent_close must be 'cancel' or 'abandon', not {shown(self._on_close)}"
            )
        check_options(call, self._options, ChildOptions, *others)
        check_depth(self._execution.claim.id)
        self._checked = self._made()

    async def limited(self) -> None:
        """Before it is started: its limits are there, so that it waits for them at once.

        Raises BackendError.
        """
        if isinstance(self.workflow, Workflow) and self.workflow.limits:
            await self._execution.services.ensure_limits(self.workflow.limits.rules)

    async def seal(self) -> None:
        """Before it is started: its input is as it is to be stored.

        Raises PayloadTooLarge and CodecError.
        """
        if (payloads := self._execution.services.payloads) is not None:
            made = self._checked or self._made()
            text = await payloads.seal(made.input, "input", made.workflow_name)
            self._sealed = made._replace(input=text)

    def row(
        self, run_id: UUID, wake_at: int | None, step_id: UUID | None = None, number: int = 0
    ) -> NewChild:
        """The row that starts it, for the step of this id, by default its own."""
        made, is_alone = self._sealed or self._checked or self._made(), step_id is None
        step_id = run_id if step_id is None else step_id
        if (observer := self._execution.services.observer) is not None:
            about = made.workflow_name, made.version
            run, child = self._execution.claim, run_id if is_alone else None
            made = made._replace(context=observer.child_begins(run, child, *about))
        return made._replace(id=run_id, step_id=step_id, number=number, wake_at=wake_at)

    def _made(self) -> NewChild:
        claim, limit = self._execution.claim, self._execution.services.payload_limit
        options: Any = self._options
        (run,) = Request(self.workflow, options, limit).runs([self._value], [None])
        return NewChild(
            claim.id,
            claim.id,
            claim.claim_no,
            claim.id,
            0,
            run.workflow_name,
            run.version,
            run.input,
            self._tags(run.tags),
            run.available_at,
            None if run.delay is None else run.delay.total_seconds(),
            run.deadline_at,
            None if run.deadline is None else run.deadline.total_seconds(),
            self._on_close,
            None,
            run.limits,
            inherited(run.priority, self._execution.workflow.priority),
        )

    def _tags(self, own: str | None) -> str | None:
        """Tags of the child: its own, and before those what its parent has tagged itself with."""
        if (teller := self._execution.teller) is None or not teller.tagged:
            return own
        return json.dumps(teller.tagged | json.loads(own or "{}"), sort_keys=True)


def codec_of(workflow: Workflow[Any, Any] | str) -> Codec[Any]:
    """The codec of a workflow's result; by name alone it is any JSON."""
    return workflow.output_codec if isinstance(workflow, Workflow) else codec_for(Any)


def check_depth(run_id: UUID) -> None:
    """Raise ConfigurationError where a run may have no children."""
    if depth_of(run_id) >= MOST_DEEP:
        raise ConfigurationError(
            f"children nest {MOST_DEEP} deep at most, and this run is as deep: does a workflow "
            "start itself?"
        )
