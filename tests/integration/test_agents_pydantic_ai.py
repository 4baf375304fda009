"""Agents of Pydantic AI in workflows: what they call is called once, whatever dies in between."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from openworkflow import ConfigurationError, RetryPolicy, Step, SyncStep, Workflow, workflow
from openworkflow.testing import Environment, Run
from tests.executions import failed, in_virtual_time, prepared

pytest.importorskip("pydantic_ai", reason="the extra `pydantic-ai` is not installed")
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests

from openworkflow.agents.pydantic_ai import (
    OpenWorkflowDurability,
    fail_external_event,
    resolve_external_event,
)

REQUEST, CALL = "guide__model.request", "guide__function_toolset__<agent>.call_tool:weather"
SOON = RetryPolicy(initial=0.001, max_delay=0.001, max_attempts=3)


@dataclass
class World:
    """What an agent has done, and the model that decides it."""

    calls: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    tool: str = "weather"
    asked: list[Any] = field(default_factory=list)

    def model(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.calls.append("model")
        if self.errors:
            raise self.errors.pop(0)
        returned = [p for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
        if not returned:
            cities = ("Rome", "Oslo")
            self.asked = [ToolCallPart(self.tool, {"city": city}) for city in cities]
            return ModelResponse(parts=self.asked)
        return ModelResponse(parts=[TextPart(" and ".join(str(p.content) for p in returned))])

    def agent(self, **options: Any) -> Agent[None, str]:
        durable = OpenWorkflowDurability[None](**options)
        return Agent(FunctionModel(self.model), name="guide", capabilities=[durable])


@pytest.fixture
def world() -> World:
    return World()


def asking(agent: Agent[Any, str], **options: Any) -> Any:
    @workflow(name="ask", retry=RetryPolicy(max_attempts=1))
    async def ask(question: str, step: Step) -> str:
        return str((await agent.run(question, **options)).output)

    return ask


async def ended(env: Environment, asked: Workflow[str, Any]) -> Run[Any]:
    return await (await env.start(asked, "where?")).end()


@pytest.mark.parametrize("crash", [(), (REQUEST,), (CALL,), (f"{REQUEST}:1",), (REQUEST, CALL)])
async def test_no_call_is_made_twice_whichever_step_the_worker_dies_after(
    ow_env: Environment, world: World, crash: tuple[str, ...]
) -> None:
    agent = world.agent()

    @agent.tool_plain
    async def weather(city: str) -> str:
        world.calls.append(city)
        return f"sun in {city}"

    for name in crash:
        ow_env.crash_after(name)
    run = await ended(ow_env, asking(agent))

    assert "sun in Rome and sun in Oslo" == run.output
    assert ["Oslo", "Rome", "model", "model"] == sorted(world.calls)
    # The names are data that runs in progress depend on.
    assert {REQUEST, CALL, f"{CALL}:1", f"{REQUEST}:1"} == {step.name for step in run.steps}
    assert 4 == len(run.steps)


async def test_plain_functions_of_an_agent_are_called_where_they_may_be(
    ow_env: Environment, world: World
) -> None:
    agent, where = world.agent(), dict[str, int]()

    @agent.instructions
    def instructions() -> str:
        where["instructions"] = threading.get_ident()
        return "Be brief."

    @agent.tool_plain
    def weather(city: str) -> str:
        where["tool"] = threading.get_ident()
        return city

    @agent.output_validator
    def checked(output: str) -> str:
        where["output"] = threading.get_ident()
        return output.upper()

    run = await ended(ow_env, asking(agent))

    assert "ROME AND OSLO" == run.output
    here = threading.get_ident()
    assert {"instructions": True, "tool": False, "output": True} == {
        name: thread == here for name, thread in where.items()
    }


async def test_what_a_tool_asks_the_model_to_mend_is_recorded_as_such(
    ow_env: Environment, world: World
) -> None:
    agent, refused = world.agent(), list[str]()

    @agent.tool_plain(retries=2)
    async def weather(city: str) -> str:
        world.calls.append(city)
        if not refused:
            refused.append(city)
            raise ModelRetry("which Rome?")
        return city

    ow_env.crash_after(CALL)
    await ended(ow_env, asking(agent))

    assert 2 == world.calls.count("model")
    assert 2 == len(world.calls) - world.calls.count("model")


async def test_a_request_that_fails_for_now_is_tried_again(
    ow_env: Environment, world: World
) -> None:
    world.errors = [ModelHTTPError(529, "m"), ModelHTTPError(429, "m")]
    agent = world.agent(model={"retry": SOON})

    @agent.tool_plain
    async def weather(city: str) -> str:
        return city

    run = await ended(ow_env, asking(agent))

    assert "Rome and Oslo" == run.output
    assert 3 == run.step(REQUEST).attempts


async def test_a_request_that_is_refused_for_good_is_not_tried_again(
    ow_env: Environment, world: World
) -> None:
    world.errors = [ModelHTTPError(401, "m", {"error": "no such key"})]

    run = await ended(ow_env, asking(world.agent()))

    assert run.error is not None
    assert ["model"] == world.calls
    assert "401" in str(run.error)


async def test_a_tool_of_the_workflows_own_code_waits_for_a_person(
    ow_env: Environment, world: World
) -> None:
    agent: Agent[Step, str] = Agent(
        FunctionModel(world.model),
        name="guide",
        deps_type=Step,
        capabilities=[OpenWorkflowDurability[Step]()],
    )

    @agent.tool(metadata={"openworkflow": False}, sequential=True)
    async def weather(ctx: RunContext[Step], city: str) -> str:
        return f"{city}: {await ctx.deps.wait_for_signal(city, type=str)}"

    @workflow
    async def ask(question: str, step: Step) -> str:
        return (await agent.run(question, deps=step)).output

    started = await ow_env.start(ask, "where?")
    for city in ("Rome", "Oslo"):
        await ow_env.signal(started.id, city, "yes")
    run = await started.end()

    assert "Rome: yes and Oslo: yes" == run.output
    assert ["model", "model"] == world.calls
    assert {REQUEST, "Rome", "Oslo", f"{REQUEST}:1"} == {step.name for step in run.steps}


@pytest.mark.parametrize("granted", [True, False])
async def test_a_request_for_input_is_answered_by_its_token(
    ow_env: Environment, world: World, granted: bool
) -> None:
    tokens: list[str] = []

    def ask(ctx: RunContext[None], requests: DeferredToolRequests, token: str) -> None:
        tokens.append(token)

    agent: Agent[None, str] = Agent(
        FunctionModel(world.model),
        name="guide",
        capabilities=[OpenWorkflowDurability[None](), RequestInput[None](ask)],
    )

    @agent.tool_plain(requires_approval=True)
    async def weather(city: str) -> str:
        world.calls.append(city)
        return city

    started = await ow_env.start(asking(agent), "where?")
    await ow_env.settle()
    (token,), client = tokens, await ow_env.client()
    assert not (await started.refresh()).status.finished
    ow_env.crash_after("guide__external_event.deferred_tool_calls.ask.answer")
    if granted:
        calls = [p for p in world.asked if isinstance(p, ToolCallPart)]
        approvals = {each.tool_call_id: True for each in calls}
        await resolve_external_event(client, token, {"approvals": approvals})
    else:
        await fail_external_event(client, token, "nobody is there")
    run = await started.end()

    assert [f"{run.id}/guide__external_event.deferred_tool_calls.ask.answer"] == tokens
    assert run.error is None
    assert (["Oslo", "Rome"] if granted else []) == sorted(c for c in world.calls if c != "model")
    if not granted:
        assert "nobody is there" in run.output


async def test_a_token_that_is_none_is_refused(ow_env: Environment) -> None:
    with pytest.raises(ConfigurationError, match="no token"):
        await resolve_external_event(await ow_env.client(), "seven", 1)


async def test_tools_of_an_mcp_server_are_steps(ow_env: Environment, world: World) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    from mcp.server import MCPServer
    from pydantic_ai.mcp import MCPToolset

    server: MCPServer[Any] = MCPServer("weather")

    @server.tool()
    async def weather(city: str) -> str:
        world.calls.append(city)
        return f"rain in {city}"

    agent: Agent[None, str] = Agent(
        FunctionModel(world.model),
        name="guide",
        toolsets=[MCPToolset(server, id="sky")],
        capabilities=[OpenWorkflowDurability[None]()],
    )
    ow_env.crash_after("guide__mcp_server__sky.call_tool")
    run = await ended(ow_env, asking(agent))

    assert "rain in Rome and rain in Oslo" == run.output
    assert ["Oslo", "Rome", "model", "model"] == sorted(world.calls)
    assert {"guide__mcp_server__sky.get_tools", "guide__mcp_server__sky.call_tool"} <= {
        step.name for step in run.steps
    }


async def test_the_id_of_an_agents_run_is_the_same_in_a_replay(
    ow_env: Environment, world: World
) -> None:
    agent, seen = world.agent(), list[tuple[str | None, str | None]]()

    @agent.tool
    async def weather(ctx: RunContext[None], city: str) -> str:
        return city

    @agent.instructions
    async def noted(ctx: RunContext[None]) -> str:
        seen.append((ctx.run_id, ctx.conversation_id))
        return ""

    @workflow
    async def ask(question: str, step: Step) -> int:
        first, second = await agent.run(question), await agent.run(question)
        return len({first.run_id, second.run_id})

    ow_env.crash_after(f"{REQUEST}:3")
    run = await ended(ow_env, ask)

    assert 2 == run.output
    assert 4 == world.calls.count("model")
    assert 2 == len(set(seen)) < len(seen)
    assert all(run_id is not None and run_id.startswith(str(run.id)) for run_id, _ in seen)


async def test_agents_that_run_at_once_replay_each_its_own(
    ow_env: Environment, world: World
) -> None:
    def echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        (asked,) = messages[0].parts[-1:]
        world.calls.append(str(getattr(asked, "content", "")))
        return ModelResponse(parts=[TextPart(world.calls[-1])])

    durable = OpenWorkflowDurability[None]()
    agent = Agent(FunctionModel(echo), name="guide", capabilities=[durable])

    @workflow
    async def ask(question: str, step: Step) -> list[str]:
        found = await asyncio.gather(*(agent.run(f"question {n}") for n in range(5)))
        return [f"{each.output} {len({each.run_id for each in found})}" for each in found]

    ow_env.crash_after(f"{REQUEST}:2")
    run = await ended(ow_env, ask)

    assert [f"question {n} 5" for n in range(5)] == run.output
    # What had begun when the worker died, and was not recorded, is called again.
    assert 5 <= len(world.calls) < 10


async def test_a_stream_is_told_once_and_its_answer_is_recorded(
    ow_env: Environment, world: World
) -> None:
    told: list[str] = []

    async def tell(ctx: RunContext[None], events: Any) -> None:
        async for event in events:
            told.append(event.event_kind)

    durable = OpenWorkflowDurability[None](event_stream_handler=tell)
    agent = Agent(TestModel(), name="guide", capabilities=[durable])

    @agent.tool_plain
    async def weather(city: str) -> str:
        return f"sun in {city}"

    ow_env.crash_after("guide__model.request_stream")
    run = await ended(ow_env, asking(agent))

    assert '{"weather":"sun in a"}' == run.output
    assert 1 == told.count("function_tool_result")
    assert {"guide__model.request_stream", "guide__event_stream_handler"} <= {
        step.name for step in run.steps
    }


async def test_outside_of_workflows_an_agent_is_as_any_other(world: World) -> None:
    agent = world.agent()

    @agent.tool_plain
    async def weather(city: str) -> str:
        return city

    assert "Rome and Oslo" == (await agent.run("where?")).output


async def test_an_agent_in_a_plain_workflow_is_told_what_to_write(ow_env: Environment) -> None:
    agent = Agent(TestModel(), name="guide", capabilities=[OpenWorkflowDurability[None]()])

    @workflow(retry=RetryPolicy(max_attempts=1))
    def ask(question: str, step: SyncStep) -> str:
        return asyncio.run(agent.run(question)).output

    run = await ended(ow_env, ask)

    assert run.error is not None
    assert "async def" in str(run.error)


async def test_a_retry_that_is_no_policy_is_refused(ow_env: Environment, world: World) -> None:
    run = await ended(ow_env, asking(world.agent(model={"retry": 3})))

    assert "RetryPolicy" in str(run.error)
    assert not world.calls


async def test_options_of_a_tool_that_do_not_exist_are_refused(
    ow_env: Environment, world: World
) -> None:
    agent = world.agent()

    @agent.tool_plain(metadata={"openworkflow": {"retries": 3}})
    async def weather(city: str) -> str:
        return city

    run = await ended(ow_env, asking(agent))

    assert run.error is not None
    assert "retry, timeout, rate" in str(run.error)


@in_virtual_time
async def test_an_agent_that_is_not_durable_is_told_what_makes_it_so() -> None:
    """By the library whose code waits: one that calls a plain tool does so in a thread."""
    agent = Agent(TestModel(), name="helper")

    @agent.tool_plain
    def look_up(order: int) -> str:
        return f"order {order}"

    async def asks(step: Step) -> str:
        return (await agent.run("where is it?")).output

    failed(await prepared(asks).execute(), "Stalled", "openworkflow.agents.pydantic_ai")
