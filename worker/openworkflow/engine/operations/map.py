"""`step.map` over a workflow: a child for each item, a window of them at a time.

The history of the run has one row for the map, however many items there are. The children are the
record of how far it has come: each is for the number of an item, and they are started in order, so
what is not there yet is to be started. Once all have ended, their results are put into the row.

No more than `concurrency` children are open. An end wakes the run once half of those are left, or
if it is no success, so the run is replayed about twice for each window and not for each item.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

from openworkflow.backend.records import Disowned, NewChild
from openworkflow.core.errors import (
    BackendError,
    ChildFailed,
    ConfigurationError,
    Fault,
    MapFailed,
    NonDeterminism,
    PayloadTooLarge,
    SerializationError,
    Suspended,
)
from openworkflow.core.failure import Failure
from openworkflow.core.ids import child_id, depth_of
from openworkflow.core.recorded import Awaited, ChildState, MapItem, RecordedStep
from openworkflow.core.serialization import Codec
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import StepKind, StepStatus
from openworkflow.core.workflow import Workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine import precedence, sealing
from openworkflow.engine.child_request import ChildOptions, ChildRequest, check_depth, codec_of
from openworkflow.engine.history import step_error
from openworkflow.engine.operations.child import failure_of, short_of
from openworkflow.engine.operations.operation import Operation
from openworkflow.engine.recorded import context_of
from openworkflow.engine.request import MAP_OPTIONS, check_options
from openworkflow.engine.step_call import StepCall, marked

logger = logging.getLogger(__name__)

ITEMS = "items"
"""In the context of a map's row: how many items, and a digest of their keys."""
MOST_AT_ONCE = 1000
"""Children of one map that are open, and so rows of one statement."""
READ_AT_ONCE = 500
MOST_ITEMS = 100_000
AGAIN = timedelta(seconds=1)
HOPELESS = (Fault.VALUE, Fault.OURS)


class MapOperation(Operation):
    """A workflow, the items that it is run for, and how many may fail."""

    __slots__ = ("_awaited", "_begun", "_codec", "_concurrency", "_keys", "_requests", "_tolerated")

    kind = StepKind.MAP

    def __init__(
        self,
        execution: Any,
        name: str,
        requests: Sequence[ChildRequest],
        codec: Codec[Any],
        concurrency: int,
        tolerated: int,
        keys: str | None = None,
    ) -> None:
        super().__init__(execution, name)
        self._requests, self._codec, self._keys = requests, codec, keys
        self._concurrency, self._tolerated = concurrency, tolerated
        self._begun: StepCall | None = None
        self._awaited: Awaited | None = None

    @property
    def starts(self) -> Any:
        """See Operation.starts."""
        return self._requests[0].workflow if self._requests else None

    def check(self) -> None:
        """See Operation.check."""
        if type(self._concurrency) is not int or not 1 <= self._concurrency <= MOST_AT_ONCE:
            raise ConfigurationError(
                f"map {shown(self.name)}: concurrency is 1 to {MOST_AT_ONCE}, "
                f"not {shown(self._concurrency)}"
            )
        if len(self._requests) > MOST_ITEMS:
            raise ConfigurationError(
                f"map {shown(self.name)} has {len(self._requests):,} items, and may have "
                f"{MOST_ITEMS:,}: map over parts of them, each in a workflow of its own"
            )
        if self.recorded is None:
            check_depth(self.execution.claim.id)
            for request in self._requests:
                request.check()
            return
        row = self.recorded.sleeping or self.recorded.settled
        told = {} if row is None else context_of(row)
        if ITEMS in told and told[ITEMS] != self._told()[ITEMS]:
            raise NonDeterminism(
                f"map {self.key!r} was begun over other items than the code now asks for; items "
                "have to come from the input, or from steps"
            )

    def _told(self) -> dict[str, Any]:
        return {ITEMS: [len(self._requests), self._keys]}

    def tells(self) -> dict[str, Any]:
        """See Operation.tells; the row says over what the map goes."""
        return super().tells() | self._told()

    def recall(self, row: RecordedStep) -> tuple[Any, BaseException | None]:
        """See Operation.recall."""
        if row.status != StepStatus.SUCCEEDED:
            return None, step_error(Failure.from_json(row.error or "{}"), self.key, row.attempt)
        try:
            return self._decoded(row.output), None
        except SerializationError as error:
            return None, error

    async def perform(self) -> tuple[Any, BaseException | None]:
        """See Operation.perform."""
        execution, inbox = self.execution, self.execution.mailbox()
        seen = inbox.wake_no
        step, known = await self._begin()
        awaited = self._awaited = Awaited(step.id, True, min(self._tolerated, MOST_ITEMS))
        inbox.open(awaited)
        try:
            # Its children end after all that was seen before they were there.
            if known and inbox.wake_no == seen:
                state = ChildState(started=self._window, open=self._window)
            else:
                state = await self._look(inbox, awaited)
            while not self._is_over(state):
                await self._start_more(step, state)
                # Another branch may have read a newer state, while this one started more.
                if not inbox.heard and inbox.state(awaited) in (None, state):
                    await execution.agenda.wait(
                        self, None, lambda wake: inbox.on_news(awaited, wake)
                    )
                    execution.check_stopped()
                state = await self._look(inbox, awaited)
            await precedence.came(self)
            if state.failed > self._tolerated:
                return await self._give_up(step, state.failed)
            return await self._finish(step)
        finally:
            inbox.close(awaited)

    def found(self) -> datetime | None:
        """See Operation.found."""
        awaited = self._awaited
        state = None if awaited is None else self.execution.mailbox().state(awaited)
        return state.ended_at if state is not None and self._is_over(state) else None

    def _is_over(self, state: ChildState) -> bool:
        goes_on = state.open or state.started < len(self._requests)
        return not goes_on or state.failed > self._tolerated

    def take_up(self) -> None:
        """See Operation.take_up."""
        self._begun = self.open_wait()

    def withdraw(self) -> None:
        """See Operation.withdraw: the children are canceled with the branch that waits for them."""
        if self._begun is not None:
            self.execution.recorder.cancel(self._begun, self._disowned(self._begun))

    @property
    def _window(self) -> int:
        return min(self._concurrency, len(self._requests))

    async def _begin(self) -> tuple[StepCall, bool]:
        """The row of the map, and whether it and its first children are new."""
        execution, recorder = self.execution, self.execution.recorder
        row = None if self.recorded is None else self.recorded.take_sleeping()
        is_open = row is not None and row.status == StepStatus.RUNNING
        if not is_open:
            await self._limited()
            await execution.gate(self)
        self.context = json.dumps(self.tells())
        step = StepCall(self.key, 1, self.context, row=row.id if row and is_open else None)
        step.kind = self.kind
        self._begun = step
        if is_open:
            recorder.adopt(step)
            return step, False
        children = await self._children(step.id, 0, self._window)
        execution.waits(StepKind.CHILD, self.key)
        await recorder.durable(recorder.begin_wait(step, None, *children))
        execution.check_stopped()
        return step, True

    async def _limited(self) -> None:
        """See ChildRequest.limited; all items are for one workflow."""
        for request in self._requests[:1]:
            await request.limited()

    async def _look(self, inbox: Any, awaited: Awaited) -> ChildState:
        await inbox.look()
        self.execution.check_stopped()
        state: ChildState | None = inbox.state(awaited)
        if state is None:  # somebody has deleted the run
            self.execution.recorder.lost()
            raise Suspended
        return state

    async def _start_more(self, step: StepCall, state: ChildState) -> None:
        """Fill the window."""
        room = min(self._concurrency - state.open, len(self._requests) - state.started)
        if room <= 0:
            return
        execution = self.execution
        await self._limited()
        await execution.gate(self)
        recorder = execution.recorder
        rows = await self._children(step.id, state.started, state.started + room)
        await recorder.durable(recorder.start(rows, self.key))
        execution.check_stopped()

    async def _children(self, step_id: UUID, start: int, end: int) -> list[NewChild]:
        """The rows of these children. The last window wakes only when all of it has ended."""
        deeper, last = depth_of(self.execution.claim.id) + 1, end == len(self._requests)
        wake_at = 0 if last else self._concurrency // 2
        if self.execution.services.payloads is not None:
            for number in range(start, end):
                await self._requests[number].seal()
        return [
            self._requests[number].row(child_id(deeper), wake_at, step_id, number)
            for number in range(start, end)
        ]

    async def _read(self, step: StepCall, start: int) -> list[MapItem]:
        """What the children came to, from this item on; asked again where that may help."""
        execution = self.execution
        while True:
            try:
                items: list[MapItem] = await execution.services.read_map(
                    step.id, start, READ_AT_ONCE
                )
            except BackendError as error:
                if error.fault in HOPELESS:
                    raise
                logger.warning("could not read the children of a map, will retry: %s", error)
                await execution.agenda.wait(self, execution.now() + AGAIN)
            else:
                execution.check_stopped()
                return items

    async def _finish(self, step: StepCall) -> tuple[Any, BaseException | None]:
        """All have ended, and enough of them well: their results become those of the step."""
        texts: list[str] = []
        first: ChildFailed | None = None
        while len(texts) < len(self._requests):
            items = await self._read(step, len(texts))
            if not items or [item.number for item in items] != list(
                range(len(texts), len(texts) + len(items))
            ):
                return None, self._fail(step, _gone(self.name, len(texts)))
            for item in items:
                if item.state.status == RunStatus.SUCCEEDED:
                    texts.append(f'{{"value":{item.state.output or "null"}}}')
                    continue
                error = failure_of(self.name, item.id, item.state)
                first = first or error
                texts.append(f'{{"error":{short_of(error).to_json()}}}')
        output = f"[{','.join(texts)}]"
        size, limit = len(output.encode()), self.execution.services.payload_limit
        try:
            if size > limit:
                raise PayloadTooLarge(f"result of map {self.name!r}", size, limit)
            value = self._decoded(output)
            stored = await sealing.of_wait(self.execution, output, self.key)
        except SerializationError as error:
            return None, self._fail(step, error)
        self.execution.recorder.end_wait(step, output=stored)
        return value, None

    async def _give_up(self, step: StepCall, count: int) -> tuple[Any, BaseException | None]:
        """Too many have failed: those that go on are canceled, the others never start."""
        failed: list[int] = []
        first: ChildFailed | None = None
        place = 0
        while len(failed) < min(count, 100):
            items = await self._read(step, place)
            if not items:
                break
            place = items[-1].number + 1
            for item in items:
                if item.state.status in (RunStatus.FAILED, RunStatus.CANCELED):
                    first = first or failure_of(self.name, item.id, item.state)
                    failed.append(item.number)
        error = MapFailed(self.name, failed, count, len(self._requests), first)
        return None, self._fail(step, error)

    def _fail(self, step: StepCall, error: Exception) -> Exception:
        failure = Failure.from_exception(error)
        self.execution.recorder.end_wait(
            step,
            StepStatus.FAILED,
            self._disowned(step),
            error=failure.to_json(),
            context=marked("final", self.context),
        )
        return step_error(failure, self.key, 1)

    def _disowned(self, step: StepCall) -> Disowned:
        return Disowned(step.id, self.execution.claim.id, self.execution.claim.claim_no)

    def _decoded(self, output: str | None) -> list[Any]:
        """The results; what failed is there as its error."""
        found = []
        for each in json.loads(output or "[]"):
            if "error" in each:
                found.append(Failure.from_object(each["error"]).reraisable(self.key, 1))
            else:
                found.append(self._codec.validate_stored(each["value"]))
        return found


def map_operation(
    execution: Any,
    name: str,
    workflow: Workflow[Any, Any] | str,
    items: Sequence[Any],
    keys: Sequence[str] | None,
    concurrency: int,
    tolerated: int,
    options: Mapping[str, Any],
) -> MapOperation:
    """A map over a workflow. Raises TypeError for options that children do not have."""
    check_options("step.map", options, ChildOptions, *MAP_OPTIONS)
    requests = [ChildRequest(execution, workflow, item, cast(Any, options)) for item in items]
    digest = None if keys is None else sha256("\0".join(keys).encode()).hexdigest()
    return MapOperation(
        execution, name, requests, codec_of(workflow), concurrency, tolerated, digest
    )


def _gone(name: str, number: int) -> ChildFailed:
    told = Failure("openworkflow.core.errors:RunNotFound", f"the child of item {number} is gone")
    return ChildFailed(name, f"of item {number}", "gone", told)
