"""The page of the MCP server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openworkflow import OpenWorkflow
from tests.docs.blocks import Page

MCP = Page("docs/mcp.md")


async def test_what_is_hidden_is_for_the_program_to_say(ow: OpenWorkflow) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    from mcp import Client

    run = await ow.run_workflow("pay", {"card": "4111"}, tags={"shop": "rome"})
    names: dict[str, Any] = await MCP.block("from openworkflow.mcp import").run(ow=ow)

    async with Client(names["server"]) as client:
        told = await client.call_tool("show_run", {"run_id": str(run.id)})
    shown = json.loads(getattr(told.content[0], "text"))  # noqa: B009
    assert "(hidden)" == shown["input"]
    assert {"shop": "rome"} == shown["tags"]
