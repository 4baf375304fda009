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
    assert "support__model.request" == run.steps[0].name


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
    assert ["clerk__model.request", "approval", "clerk__model.request:1"] == [
        step.name for step in run.steps
    ]
