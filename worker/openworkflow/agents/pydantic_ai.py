"""Agents of Pydantic AI whose model requests, tool calls and MCP calls are steps.

    agent = Agent("openai:gpt-5", name="support", capabilities=[OpenWorkflowDurability()])

    @workflow
    async def answer(question: str) -> str:
        return (await agent.run(question)).output

Needs the extra `pydantic-ai`. In no workflow such an agent is as any other.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic.errors import PydanticUserError
from pydantic_ai._utils import _disable_threads
from pydantic_ai.agent import AgentRunResult, EventStreamHandler
from pydantic_ai.capabilities import WrapRunHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationId,
    ExternalEventError,
    ExternalEventWaiter,
    JournalCallableOperationBackend,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetValidateToolArgumentsId,
    conversation_id_from_run_id,
    external_event_scope,
)
from pydantic_ai.exceptions import UnexpectedModelBehavior, UserError
from pydantic_ai.models import Model
from pydantic_ai.tools import AgentDepsT, RunContext
from pydantic_core import to_jsonable_python

from openworkflow.agents.calling import StepOptions, as_step, current_workflow
from openworkflow.core.errors import ConfigurationError, SerializationError
from openworkflow.engine.current import current_step

if TYPE_CHECKING:
    from openworkflow.client import OpenWorkflow

TOOL_METADATA = "openworkflow"
"""The key of a tool's metadata: StepOptions of its own, or False for a tool of the workflow's own
code, which is no step and may call steps."""
_FINAL = (UserError, PydanticUserError, UnexpectedModelBehavior, SerializationError)
"""Errors that the same call would have again."""

_ordinals: ContextVar[tuple[object, "count[int]"] | None] = ContextVar(
    "openworkflow_agent_ordinals", default=None
)
"""Branch of an execution, and the number of runs of agents that it has begun."""


class OpenWorkflowDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes the calls of an agent steps, wherever it is run in an `async def` workflow.

    The agent needs a name, which its steps begin with, and each toolset an id: both are recorded.
    `model`, `tools`, `mcp` and `events` are StepOptions of the requests to the model, of calls of
    tools, of calls of MCP servers, and of what `event_stream_handler` is called with; a tool has
    its own as `metadata={"openworkflow": {"timeout": "30s"}}`. `models` are those that a run may
    name beside the agent's own.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="OpenWorkflow",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=JSON_CODEC,
        serialization_failure=lambda error: SerializationError(f"an agent's step: {error}"),
        toolset_lifecycles={
            "function": "enter-always",
            "mcp": "enter-in-durable-unit",
            "dynamic": "enter-never",
        },
        tool_config_key=TOOL_METADATA,
    )

    def __init__(
        self,
        *,
        model: StepOptions | None = None,
        tools: StepOptions | None = None,
        mcp: StepOptions | None = None,
        events: StepOptions | None = None,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._model, self._tools = model or StepOptions(), tools or StepOptions()
        self._mcp, self._events = mcp or StepOptions(), events or StepOptions()

    @property
    def in_durable_context(self) -> bool:
        """Whether a workflow's own code runs."""
        return current_workflow() is not None

    def get_durable_operation_backend(self) -> "_Steps":
        """What calls an operation as a step."""
        config = RoleBasedOperationConfig(
            model=self._model,
            event=self._events,
            capability=self._tools,
            tool=self._tools,
            resolve_tool=self._options_of,
        )
        return _Steps(agent_name=self.name, default_model_id=self.default_model_id, config=config)

    def get_default_run_id(self) -> str | None:
        """The id of an agent's run: the same in each replay."""
        workflow = current_workflow()
        return None if workflow is None else f"{workflow.run_id}:{_ordinal(workflow)}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """The id of a conversation: the same in each replay."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """When the run of an agent with a `timeout` began: recorded, so that a replay adds none."""
        if not self.in_durable_context:
            return None
        began = await as_step(f"{self.name}__run_start_time", _now, StepOptions())
        return datetime.fromisoformat(began)

    async def wrap_run(
        self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        """Run the agent; its plain functions that are no tools are called where they stand."""
        if not self.in_durable_context:
            return await super().wrap_run(ctx, handler=handler)
        with _threads(allowed=False), external_event_scope(_Signals(self.name)):
            return await super().wrap_run(ctx, handler=handler)

    def _options_of(
        self, operation_id: DurableOperationId, tool: Any, name: str
    ) -> StepOptions | Literal[False]:
        """The options of a tool."""
        is_call = isinstance(operation_id, ToolsetCallToolId | ToolsetValidateToolArgumentsId)
        kind = getattr(operation_id, "toolset_kind", None)
        options = self._mcp if kind == "mcp" else self._tools
        metadata = None if tool is None or not is_call else tool.tool_def.metadata
        own = (metadata or {}).get(TOOL_METADATA)
        if own is False or own is None:
            return False if own is False else options
        if not isinstance(own, dict) or set(own) - set(StepOptions.__annotations__):
            raise ConfigurationError(
                f"tool {name!r}: its metadata {TOOL_METADATA!r} is False, or a dict of "
                f"{', '.join(StepOptions.__annotations__)}"
            )
        return StepOptions(**{**options, **own})


class _Steps(JournalCallableOperationBackend[StepOptions]):
    """Calls each operation as a step, under the name that Pydantic AI gives it."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: StepOptions,
    ) -> object:
        """See CallableOperationBackend."""

        async def call() -> Any:
            with _threads(allowed=True):
                return await body()

        return await as_step(name, call, config, *_FINAL)


class _Signals(ExternalEventWaiter):
    """Waits for external events as for signals to the run."""

    def __init__(self, agent_name: str) -> None:
        self._agent_name = agent_name

    async def wait(
        self, name: str, *, ask: Callable[[str], Awaitable[Any]], timeout: timedelta | None
    ) -> Any:
        """See ExternalEventWaiter. The token is the run and the signal, which the step names."""

        async def asking() -> Any:
            me = current_step()
            with _threads(allowed=True):
                return [f"{me.name}.answer", await ask(f"{me.run_id}/{me.name}.answer")]

        step = f"{self._agent_name}__external_event.{name}.ask"
        signal, answer = await as_step(step, asking, StepOptions(), *_FINAL)
        if answer is not None:
            return answer
        waiting = current_workflow().wait_for_signal
        told = await waiting(signal, timeout=timeout, type=dict, default=None)
        if told is None:
            raise ExternalEventError(f"No resolution arrived within {timeout}.")
        if "failure" in told:
            raise ExternalEventError(told["failure"])
        return told["payload"]


async def resolve_external_event(ow: "OpenWorkflow", token: str, payload: Any) -> None:
    """End the wait of an agent's run for this token, from anywhere: with what it waits for.

    The first answer counts. Raises ConfigurationError, RunNotFound, or InvalidRunState.
    """
    await _send(ow, token, {"payload": to_jsonable_python(payload)})


async def fail_external_event(ow: "OpenWorkflow", token: str, reason: str) -> None:
    """End the wait of an agent's run for this token with a failure; see resolve_external_event."""
    await _send(ow, token, {"failure": reason})


async def _send(ow: "OpenWorkflow", token: str, told: dict[str, Any]) -> None:
    run_id, _, name = token.partition("/")
    if not (name and _is_id(run_id)):
        raise ConfigurationError("this is no token that an agent in a workflow has handed out")
    await ow.signal(UUID(run_id), name, told, idempotency_key=token)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _ordinal(workflow: Any) -> str:
    """By the branch that asks, and how often it did: what a replay has again."""
    loop = getattr(getattr(workflow, "_program", None), "loop", None)
    execution = getattr(workflow, "_execution", None)
    path = "" if loop is None else loop.branch().path
    claim = id(workflow) if execution is None else execution.claim.claim_no
    mark, found = (workflow.run_id, claim, path), _ordinals.get()
    if found is None or found[0] != mark:
        _ordinals.set(found := (mark, count()))
    return f"{f'{path}:' if path else ''}{next(found[1])}"


@contextmanager
def _threads(*, allowed: bool) -> Generator[None]:
    """Whether plain functions are called in threads: in a step, and never in a workflow's code.

    There the loop refuses them, since nobody could replay when they end.
    """
    token = _disable_threads.set(not allowed)
    try:
        yield
    finally:
        _disable_threads.reset(token)


def _now() -> str:
    return datetime.now(UTC).isoformat()
