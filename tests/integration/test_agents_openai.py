"""Agents of the OpenAI Agents SDK in workflows: what they call is called once, whatever dies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from openworkflow import RetryPolicy, Step, Workflow, workflow
from openworkflow.testing import Environment, Run

pytest.importorskip("agents", reason="the extra `openai-agents` is not installed")
from agents import Agent, FunctionTool, RunConfig, RunContextWrapper, function_tool, handoff
from agents.extensions.handoff_prompt import prompt_with_handoff_instructions
from agents.models.interface import Model, ModelProvider
from agents.testing import ScriptedModel, assistant_message, function_call

from openworkflow.agents.openai_agents import DurableRunner

ONCE = RetryPolicy(max_attempts=1)
SOON = RetryPolicy(initial=0.001, max_delay=0.001, max_attempts=3)
SILENT = RunConfig(tracing_disabled=True)


@dataclass
class World:
    """What an agent has done; a model says what it is told to, each answer once."""

    calls: list[str] = field(default_factory=list)

    def agent(self, *steps: Any, **options: Any) -> Agent[Any]:
        model = ScriptedModel(list(steps))
        tool = function_tool(self.weather, failure_error_function=None)
        return Agent(name="guide", model=model, tools=[tool], **options)

    async def weather(self, city: str) -> str:
        """The weather of a city."""
        self.calls.append(city)
        return f"sun in {city}"


@pytest.fixture
def world() -> World:
    return World()


def cities() -> list[Any]:
    return [
        function_call("weather", {"city": city}, call_id=f"call-{city}")
        for city in ("Rome", "Oslo")
    ]


def asking(agent: Agent[Any], runner: DurableRunner | None = None, **options: Any) -> Any:
    @workflow(name="ask", retry=ONCE)
    async def ask(question: str, step: Step) -> str:
        result = await (runner or DurableRunner()).run(
            agent, question, **{"run_config": SILENT, **options}
        )
        return f"{result.last_agent.name}: {result.final_output}"

    return ask


async def ended(env: Environment, asked: Workflow[str, Any]) -> Run[Any]:
    return await (await env.start(asked, "where?")).end()


@pytest.mark.parametrize(
    "crash", [(), ("model",), ("guide.weather",), ("model:1",), ("model", "guide.weather:1")]
)
async def test_no_call_is_made_twice_whichever_step_the_worker_dies_after(
    ow_env: Environment, world: World, crash: tuple[str, ...]
) -> None:
    agent = world.agent(cities(), [assistant_message("sunny")])
    for name in crash:
        ow_env.crash_after(name)

    run = await ended(ow_env, asking(agent))

    assert "guide: sunny" == run.output
    assert ["Oslo", "Rome"] == sorted(world.calls)
    # The names are data that runs in progress depend on. No timer is among them.
    assert ["guide.weather", "guide.weather:1", "model", "model:1"] == sorted(
        step.name for step in run.steps
    )


async def test_a_tool_that_fails_for_now_is_tried_again(ow_env: Environment, world: World) -> None:
    agent, failures = world.agent(cities()[:1], [assistant_message("wet")]), [OSError("away")] * 2

    async def weather(city: str) -> str:
        if failures:
            raise failures.pop()
        return "rain"

    agent.tools = [function_tool(weather, failure_error_function=None)]
    run = await ended(ow_env, asking(agent, DurableRunner(tools={"retry": SOON})))

    assert "guide: wet" == run.output
    assert 3 == run.step("guide.weather").attempts


async def test_who_is_handed_over_to_calls_steps_too(ow_env: Environment, world: World) -> None:
    clerk = world.agent(cities()[:1], [assistant_message("sunny")])
    clerk.name = "clerk"
    first: Agent[Any] = Agent(
        name="first",
        model=ScriptedModel([[function_call("transfer_to_clerk", {}, call_id="over")]]),
        handoffs=[handoff(clerk)],
        instructions=prompt_with_handoff_instructions("Hand over."),
    )
    clerk.handoffs = [first]
    ow_env.crash_after("clerk.weather")

    run = await ended(ow_env, asking(first))

    assert "clerk: sunny" == run.output
    assert ["Rome"] == world.calls
    assert ["clerk.weather", "model", "model:1", "model:2"] == sorted(s.name for s in run.steps)


async def test_a_model_that_is_named_is_a_step_by_its_name(
    ow_env: Environment, world: World
) -> None:
    class Provider(ModelProvider):
        def get_model(self, model_name: str | None) -> Model:
            return scripted

    scripted = ScriptedModel([[assistant_message("here")]])
    agent: Agent[Any] = Agent(name="guide", model="gpt-x")
    config = RunConfig(model_provider=Provider(), tracing_disabled=True)

    run = await ended(ow_env, asking(agent, run_config=config))

    assert "guide: here" == run.output
    assert ["model.gpt-x"] == [step.name for step in run.steps]


async def test_a_tool_of_the_workflows_own_code_waits_for_a_person(
    ow_env: Environment, world: World
) -> None:
    agent = world.agent(cities()[:1], [assistant_message("done")])

    async def weather(ctx: RunContextWrapper[Step], city: str) -> str:
        told = await ctx.context.wait_for_signal("sky", type=str)
        world.calls.append(told)
        return str(told)

    agent.tools = [function_tool(weather, failure_error_function=None)]

    @workflow(retry=ONCE)
    async def ask(question: str, step: Step) -> str:
        runner = DurableRunner(each_tool={"weather": False})
        result = await runner.run(agent, question, context=step, run_config=SILENT)
        return str(result.final_output)

    started = await ow_env.start(ask, "where?")
    await ow_env.signal(started.id, "sky", "clouds")
    run = await started.end()

    assert "done" == run.output
    assert "clouds" in world.calls
    assert ["model", "model:1", "sky"] == sorted(step.name for step in run.steps)


async def test_tools_of_an_mcp_server_are_steps(ow_env: Environment, world: World) -> None:
    from agents.mcp import MCPServer
    from mcp.types import CallToolResult, GetPromptResult, ListPromptsResult, TextContent
    from mcp.types import Tool as MCPTool

    class Sky(MCPServer):
        name = "sky"

        async def connect(self) -> None: ...

        async def cleanup(self) -> None: ...

        async def list_tools(self, *_: Any, **__: Any) -> list[MCPTool]:
            world.calls.append("list")
            schema = {"type": "object", "properties": {"city": {"type": "string"}}}
            return [MCPTool.model_validate({"name": "weather", "inputSchema": schema})]

        async def call_tool(self, tool_name: str, *arguments: Any, **_: Any) -> CallToolResult:
            world.calls.append(f"{tool_name} of {arguments[0]['city']}")
            return CallToolResult(content=[TextContent(type="text", text="fog")])

        async def list_prompts(self, *_: Any) -> ListPromptsResult:
            raise NotImplementedError

        async def get_prompt(self, *_: Any, **__: Any) -> GetPromptResult:
            raise NotImplementedError

    agent = world.agent(cities()[:1], [assistant_message("foggy")])
    agent.tools, agent.mcp_servers = [], [Sky()]
    ow_env.crash_after("mcp.sky.weather")

    run = await ended(ow_env, asking(agent))

    assert "guide: foggy" == run.output
    assert 1 == world.calls.count("weather of Rome")
    assert world.calls.count("list") == sum(
        step.name.startswith("mcp.sky.list_tools") for step in run.steps
    )


async def test_outside_of_workflows_it_is_the_runner_of_the_sdk(world: World) -> None:
    agent = world.agent(cities(), [assistant_message("sunny")])

    result = await DurableRunner().run(agent, "where?", run_config=SILENT)

    assert "sunny" == result.final_output
    assert result.last_agent is agent


async def test_a_session_is_refused_since_it_is_no_step(ow_env: Environment, world: World) -> None:
    from agents import SQLiteSession

    session = SQLiteSession("one")
    try:
        run = await ended(ow_env, asking(world.agent(), session=session))
    finally:
        session.close()
    assert "to_input_list" in str(run.error)


async def test_a_tool_that_acts_without_a_function_is_refused(
    ow_env: Environment, world: World
) -> None:
    from agents import LocalShellTool

    agent = world.agent()
    agent.tools = [LocalShellTool(executor=lambda request: "")]
    run = await ended(ow_env, asking(agent))
    assert "function tool" in str(run.error)


async def test_what_a_tool_returns_is_the_same_to_the_model(
    ow_env: Environment, world: World
) -> None:
    seen: list[Any] = []

    async def weather(ctx: Any, arguments: str) -> Any:
        return {"sky": "clear", "degrees": 21}

    for durable in (True, False):
        model = ScriptedModel([cities()[:1], [assistant_message("ok")]])
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = FunctionTool("weather", "", schema, weather, strict_json_schema=False)
        agent: Agent[Any] = Agent(name="guide", model=model, tools=[tool])
        if durable:
            await ended(ow_env, asking(agent))
        else:
            await DurableRunner().run(agent, "where?", run_config=SILENT)
        seen.append([item for item in model.calls[1].input if "output" in item])

    assert seen[0] == seen[1] != []
