"""The page on agents."""

from __future__ import annotations

from typing import Any

import pytest

from openworkflow import Step
from openworkflow.testing import Environment
from tests.docs.blocks import Page

AGENTS = Page("docs/agents.md")


async def test_an_agent_of_pydantic_ai_is_run_in_a_workflow(ow_env: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="the extra `pydantic-ai` is not installed")
    from pydantic_ai.models.test import TestModel

    asked: list[int] = []

    async def ask_the_shop(order: int) -> str:
        asked.append(order)
        return "sent"

    names: dict[str, Any] = await AGENTS.block("agent = Agent(").run(
        model=TestModel(), ask_the_shop=ask_the_shop
    )
    run = await ow_env.run(names["answer"], "where is it?")

    assert '{"order_status":"sent"}' == run.output
    assert 1 == len(asked)
    assert run.step("support__model.request").output


async def test_a_tool_of_an_agent_waits_for_a_person(ow_env: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="the extra `pydantic-ai` is not installed")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from openworkflow import workflow
    from openworkflow.agents.pydantic_ai import OpenWorkflowDurability

    clerk: Agent[Step, str] = Agent(
        TestModel(),
        name="clerk",
        deps_type=Step,
        capabilities=[OpenWorkflowDurability[Step]()],
    )
    names = await AGENTS.block("@clerk.tool(metadata").run(clerk=clerk, workflow=workflow)
    started = await ow_env.start(names["refund"], "may I?")
    await ow_env.signal(started.id, "approval", "yes")
    run = await started.end()

    assert '{"approval":"yes"}' == run.output
    assert {"clerk__model.request", "approval", "clerk__model.request:1"} == {
        step.name for step in run.steps
    }


async def test_an_agent_of_the_openai_sdk_is_run_in_a_workflow(ow_env: Environment) -> None:
    pytest.importorskip("agents", reason="the extra `openai-agents` is not installed")
    from agents import set_tracing_disabled
    from agents.testing import ScriptedModel, assistant_message, function_call

    asked: list[int] = []

    async def ask_the_shop(order: int) -> str:
        asked.append(order)
        return "sent"

    call = function_call("order_status", {"order": 7}, call_id="one")
    model = ScriptedModel([[call], [assistant_message("It is sent.")]])
    set_tracing_disabled(True)  # there is no key to send them with
    names = await AGENTS.block("support = Agent(").run(model=model, ask_the_shop=ask_the_shop)
    run = await ow_env.run(names["answer"], "where is it?")

    assert "It is sent." == run.output
    assert [7] == asked
    assert {"model", "support.order_status", "model:1"} == {step.name for step in run.steps}


async def test_a_test_says_where_the_worker_dies(ow_env: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="the extra `pydantic-ai` is not installed")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from openworkflow import workflow
    from openworkflow.agents.pydantic_ai import OpenWorkflowDurability

    agent = Agent(TestModel(), name="support", capabilities=[OpenWorkflowDurability[None]()])

    @workflow
    async def answer(question: str) -> str:
        return (await agent.run(question)).output

    names = await AGENTS.block("async def test_it_asks_once").run(answer=answer)
    await names["test_it_asks_once"](ow_env)
