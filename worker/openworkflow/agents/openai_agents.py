"""Agents of the OpenAI Agents SDK whose model requests, tool calls and MCP calls are steps.

    runner = DurableRunner()

    @workflow
    async def answer(question: str) -> str:
        return (await runner.run(agent, question)).final_output

Needs the extra `openai-agents`. In no workflow it is the SDK's own runner.
"""

import copy
import dataclasses
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, Literal, NoReturn

from agents import (
    Agent,
    ApplyPatchTool,
    ComputerTool,
    CustomTool,
    FunctionTool,
    Handoff,
    LocalShellTool,
    Model,
    ModelProvider,
    ModelResponse,
    RunConfig,
    Runner,
    RunResult,
    ShellTool,
    Tool,
)
from agents.exceptions import UserError
from agents.mcp import MCPServer
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from openworkflow.agents.calling import StepOptions, as_step, current_workflow
from openworkflow.core.errors import ConfigurationError, SerializationError

ToolOptions = Mapping[str, StepOptions | Literal[False]]
_RESPONSE = TypeAdapter(ModelResponse)
_ACTING = (ApplyPatchTool, ComputerTool, CustomTool, LocalShellTool, ShellTool)
"""Tools that act on this machine by other ways than a function."""


class DurableRunner:
    """Runs agents as `agents.Runner` does, with steps for their calls in an `async def` workflow.

    `model`, `tools` and `mcp` are StepOptions of the requests to models, of calls of tools and of
    calls of MCP servers. `each_tool` has those of single tools by their names, or False for a tool
    of the workflow's own code, which is no step and may call steps.
    """

    def __init__(
        self,
        *,
        model: StepOptions | None = None,
        tools: StepOptions | None = None,
        mcp: StepOptions | None = None,
        each_tool: ToolOptions | None = None,
    ) -> None:
        self._model, self._tools = model or StepOptions(), tools or StepOptions()
        self._mcp, self._each_tool = mcp or StepOptions(), dict(each_tool or {})

    @cached_property
    def _default(self) -> RunConfig:
        """One for all runs: its provider keeps connections."""
        return RunConfig()

    async def run(
        self,
        starting_agent: Agent[Any],
        input: Any,
        *,
        run_config: RunConfig | dict[str, Any] | None = None,
        **options: Any,
    ) -> RunResult:
        """Run an agent, and those that it hands over to, until there is an output.

        The arguments are those of `agents.Runner.run`. Raises as that does, and ConfigurationError
        in a workflow for a session, and for a tool that acts on the machine without a function.
        """
        if current_workflow() is None:
            return await Runner.run(starting_agent, input, run_config=run_config, **options)
        if options.get("session") is not None:
            raise ConfigurationError(
                "a session reads and writes outside of steps; keep the conversation in the "
                "workflow: result.to_input_list()"
            )
        if isinstance(run_config, dict):
            run_config = RunConfig(**run_config)
        config = run_config or self._default
        config = dataclasses.replace(
            config,
            model=self._durable_model(config.model) if config.model is not None else None,
            model_provider=_Provider(self, config.model_provider),
        )
        durable = self._durable_agent(starting_agent, {})
        return await Runner.run(durable, input, run_config=config, **options)

    def _durable_agent(self, agent: Agent[Any], known: dict[int, Agent[Any]]) -> Agent[Any]:
        """A copy whose calls are steps; of each agent one, since they hand over in circles."""
        if (made := known.get(id(agent))) is not None:
            return made
        durable = known[id(agent)] = copy.copy(agent)
        durable.model = self._durable_model(agent.model)
        durable.tools = [self._durable_tool(agent, tool) for tool in agent.tools]
        durable.mcp_servers = [self._durable_server(server) for server in agent.mcp_servers]
        durable.handoffs = [self._durable_handoff(each, known) for each in agent.handoffs]
        return durable

    def _durable_handoff(
        self, handoff: Agent[Any] | Handoff[Any, Any], known: dict[int, Agent[Any]]
    ) -> Agent[Any] | Handoff[Any, Any]:
        if not isinstance(handoff, Handoff):
            return self._durable_agent(handoff, known)

        async def hand_over(context: Any, arguments: str) -> Any:
            return self._durable_agent(await handoff.on_invoke_handoff(context, arguments), known)

        return dataclasses.replace(handoff, on_invoke_handoff=hand_over)

    def _durable_model(self, model: Any) -> Any:
        """A model; a name is looked up by the provider, which makes it one of these."""
        if not isinstance(model, Model) or isinstance(model, _DurableModel):
            return model
        return _DurableModel(model, getattr(model, "model", None), self._model)

    def _durable_tool(self, agent: Agent[Any], tool: Tool) -> Tool:
        if isinstance(tool, _ACTING):
            raise ConfigurationError(
                f"tool {getattr(tool, 'name', tool)!r} of agent {agent.name!r} acts on the "
                "worker's machine outside of steps; write it as a function tool"
            )
        options = self._each_tool.get(getattr(tool, "name", ""), self._tools)
        if not isinstance(tool, FunctionTool) or options is False:
            return tool
        name, has_schema = f"{agent.name}.{tool.name}", tool.output_json_schema is not None

        async def invoke(context: Any, arguments: str) -> Any:
            async def call() -> Any:
                return _stored(await tool.on_invoke_tool(context, arguments), has_schema)

            return await as_step(name, call, options, UserError, SerializationError)

        return dataclasses.replace(tool, on_invoke_tool=invoke)

    def _durable_server(self, server: MCPServer) -> MCPServer:
        """A copy with the same connection, whose two calls are steps."""
        durable, options = copy.copy(server), self._mcp

        async def list_tools(*arguments: Any, **named: Any) -> Any:
            from mcp.types import Tool as MCPTool

            async def call() -> Any:
                return to_jsonable_python(
                    await server.list_tools(*arguments, **named), by_alias=True
                )

            found = await as_step(f"mcp.{server.name}.list_tools", call, options)
            return [MCPTool.model_validate(each) for each in found]

        async def call_tool(tool_name: str, *arguments: Any, **named: Any) -> Any:
            from mcp.types import CallToolResult

            async def call() -> Any:
                result = await server.call_tool(tool_name, *arguments, **named)
                return to_jsonable_python(result, by_alias=True)

            told = await as_step(f"mcp.{server.name}.{tool_name}", call, options)
            return CallToolResult.model_validate(told)

        durable.list_tools, durable.call_tool = list_tools, call_tool  # type: ignore[method-assign]
        return durable


class _Provider(ModelProvider):
    """The provider of a run, whose models make their requests as steps."""

    def __init__(self, runner: DurableRunner, provider: ModelProvider) -> None:
        self._runner, self._provider = runner, provider

    def get_model(self, model_name: str | None) -> Model:
        """See ModelProvider."""
        found = self._provider.get_model(model_name)
        return _DurableModel(found, model_name, self._runner._model)

    async def aclose(self) -> None:
        """See ModelProvider."""
        await self._provider.aclose()


class _DurableModel(Model):
    """A model whose requests are steps."""

    def __init__(self, model: Model, name: object, options: StepOptions) -> None:
        self._of, self._options = model, options
        self._name = f"model.{name}" if isinstance(name, str) else "model"

    async def get_response(self, *arguments: Any, **named: Any) -> ModelResponse:
        """See Model."""

        async def call() -> Any:
            answer = await self._of.get_response(*arguments, **named)
            return _RESPONSE.dump_python(answer, mode="json")

        told = await as_step(self._name, call, self._options, UserError, SerializationError)
        return _RESPONSE.validate_python(told)

    def stream_response(self, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        """See Model. What is streamed could not be recorded."""
        _refuse_streams()

    def get_retry_advice(self, request: Any) -> Any:
        """See Model."""
        return self._of.get_retry_advice(request)

    async def close(self) -> None:
        """See Model."""
        await self._of.close()


def _refuse_streams() -> NoReturn:
    raise ConfigurationError(
        "an agent in a workflow is run, and not streamed: its answers are recorded"
    )


def _stored(output: Any, has_schema: bool) -> Any:
    """What a tool returned, in JSON that the SDK takes for the same."""
    if output is None or isinstance(output, str | bool | int | float):
        return output
    if has_schema or isinstance(output, BaseModel | dict | list | tuple):
        return to_jsonable_python(output, fallback=str)
    return str(output)
