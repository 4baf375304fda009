"""`openworkflow mcp`: asked by the protocol's own client, over the pipes of a real process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from openworkflow import BackendPostgres, OpenWorkflow, RetryPolicy, Step, workflow
from openworkflow.codecs import Encryption
from tests.helpers import StartWorker, eventually
from tests.integration.test_cli import run as command

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

LOOKS = {
    "overview",
    "list_runs",
    "explain_run",
    "show_run",
    "list_errors",
    "fleet",
    "list_schedules",
    "list_limits",
}
DEEDS = {"retry_run", "cancel_run", "pause_run", "resume_run", "signal_run"}
LONG = "x" * 10_000
ONCE = RetryPolicy(max_attempts=1)


def charge(order: int) -> str:
    if order < 0:
        raise ValueError(f"no order \N{RIGHT-TO-LEFT OVERRIDE}{order}")
    return LONG


@workflow(retry=ONCE)
async def ship(order: int, step: Step) -> str:
    return await step.run("charge", charge, order, retry=ONCE)


@workflow
async def approval(step: Step) -> str:
    return str(await step.wait_for_signal("approve", type=str))


class Asked:
    """A client of a server that was started with the options of a command."""

    def __init__(self, client: Client, log: Path) -> None:
        self._client, self._log = client, log

    async def tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in (await self._client.list_tools()).tools}

    async def call(self, tool: str, **arguments: Any) -> Any:
        told = await self._client.call_tool(tool, arguments)
        text: str = getattr(told.content[0], "text")  # noqa: B009
        assert not told.is_error, text
        return json.loads(text)

    async def refusal(self, tool: str, **arguments: Any) -> str:
        told = await self._client.call_tool(tool, arguments)
        assert told.is_error
        return str(getattr(told.content[0], "text"))  # noqa: B009

    def audit(self) -> list[dict[str, Any]]:
        """What the audit log on stderr says."""
        lines = map(json.loads, self._log.read_text().splitlines())
        told = [each for each in lines if each["logger"] == "openworkflow.dashboard.audit"]
        return [json.loads(each["message"]) for each in told]


@contextlib.asynccontextmanager
async def asked(
    folder: Path, url: str, *options: str, passing: Sequence[str] = ()
) -> AsyncIterator[Asked]:
    passed = {name: os.environ[name] for name in ("PYTHONPATH", *passing) if name in os.environ}
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "openworkflow", "mcp", *options],
        env={"DATABASE_URL": url, **passed},
        cwd=folder,
    )
    log = folder / "stderr"
    with log.open("w") as errors:
        async with Client(stdio_client(server, errors), read_timeout_seconds=60) as client:
            yield Asked(client, log)


async def test_it_only_looks_unless_it_is_told_otherwise(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    run = await ow.run_workflow(approval)
    async with asked(tmp_path, database_url) as assistant:
        tools = await assistant.tools()
        assert LOOKS == set(tools)
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        assert all(tool.description and tool.input_schema for tool in tools.values())
        for name in DEEDS:
            assert "Unknown tool" in await assistant.refusal(name, run_id=str(run.id))

    assert not (await run.status()).finished


async def test_a_failed_run_is_found_and_understood(
    tmp_path: Path, database_url: str, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(ship)
    failed = await ow.run_workflow(ship, -7)
    done = await ow.run_workflow(ship, 7)
    await ow.wait(failed.id, "30s")
    await ow.wait(done.id, "30s")
    async with asked(tmp_path, database_url) as assistant:
        groups = (await assistant.call("list_errors"))["groups"]
        assert [(1, "ValueError", "ship", str(failed.id))] == [
            (each["runs"], each["type"], each["workflow"], each["newest_run"]) for each in groups
        ]
        assert "step 'charge'" in groups[0]["place"]
        found = await assistant.call("list_runs", where=groups[0]["where"])
        assert [str(failed.id)] == [each["id"] for each in found["runs"]]
        shown = await assistant.call("show_run", run_id=str(failed.id))
        assert -7 == shown["input"]
        assert r"\u202e" in shown["errors"][0]["message"]  # shown, and not obeyed
        assert "in step 'charge'" in shown["errors"][0]["traceback"]
        assert ["charge"] == [each["step"] for each in shown["attempts_of_steps"]]
        assert ["fork", "retry"] == shown["can_be"]
        long = await assistant.call("show_run", run_id=str(done.id))
        assert "more characters" in long["output"]
        assert len(long["output"]) < 4100
        assert len(long["attempts_of_steps"][0]["result"]) < 450
        told = await assistant.call("overview")
        assert (2, 1, 1) == tuple(
            told["workflows"][0][name] for name in ("newest_runs", "succeeded", "failed")
        )


async def test_what_is_encoded_is_described_and_never_decoded(
    tmp_path: Path, database_url: str, backend: BackendPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the codec of the environment: whoever encrypts does so for fewer eyes."""
    (tmp_path / "keys.py").write_text(
        "from openworkflow.codecs import Encryption\n"
        f"codec = Encryption({{'k1': '{(key := Encryption.new_key())}'}})\n"
    )
    ow = OpenWorkflow(backend, codec=Encryption({"k1": key}))
    worker = ow.new_worker(workflows=[ship])
    await worker.start()
    run = await ow.run_workflow(ship, 7)
    await run.result(timeout="30s")
    await worker.stop()
    monkeypatch.setenv("OPENWORKFLOW_CODEC", "keys:codec")
    async with asked(tmp_path, database_url, passing=("OPENWORKFLOW_CODEC",)) as assistant:
        shown = await assistant.call("show_run", run_id=str(run.id))

    said = "encrypted with key 'k1'"
    told = [shown["input"], shown["output"], shown["attempts_of_steps"][0]["result"]]
    assert all(said in each and len(each) < 100 for each in told), told


async def test_why_a_run_is_not_done_is_told(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    run = await ow.run_workflow(approval)
    async with asked(tmp_path, database_url) as assistant:
        told = await assistant.call("explain_run", run_id=str(run.id))
        assert "due" == told["reason"]
        assert (await run.explain()).sentence == told["sentence"]
        listed = await assistant.call("list_runs")
        assert ["queued"] == [each["stands"] for each in listed["runs"]]
        assert {"builds": [], "served": [], "pauses": []} == await assistant.call("fleet")
        assert {"schedules": []} == await assistant.call("list_schedules")
        assert [] == (await assistant.call("list_limits"))["limits"]


async def test_pages_follow_each_other(tmp_path: Path, database_url: str, ow: OpenWorkflow) -> None:
    made = [(await ow.run_workflow(approval)).id for _ in range(3)]
    async with asked(tmp_path, database_url) as assistant:
        page = await assistant.call("list_runs", limit=2)
        rest = await assistant.call("list_runs", limit=2, after=page["next"])
    seen = [each["id"] for each in (*page["runs"], *rest["runs"])]
    assert [str(each) for each in reversed(made)] == seen
    assert "next" not in rest


async def test_what_cannot_be_answered_says_what_was_wrong(
    tmp_path: Path, database_url: str
) -> None:
    async with asked(tmp_path, database_url, "--allow-actions") as assistant:
        unknown = str(uuid4())
        for tool, arguments, said in (
            ("list_runs", {"where": "stauts:failed"}, "status"),
            ("list_runs", {"limit": 1000}, "50"),
            ("show_run", {"run_id": "seven"}, "UUID"),
            ("show_run", {"run_id": unknown}, unknown),
            ("explain_run", {"run_id": unknown}, unknown),
            ("retry_run", {"run_id": unknown}, unknown),
        ):
            assert said in await assistant.refusal(tool, **arguments), tool


async def test_actions_are_taken_where_allowed_and_are_in_the_audit_log(
    tmp_path: Path, database_url: str, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(approval)
    run = await ow.run_workflow(approval)
    of = {"run_id": str(run.id)}
    async with asked(tmp_path, database_url, "--allow-actions", "--by", "ann") as assistant:
        tools = await assistant.tools()
        assert LOOKS | DEEDS == set(tools)
        assert not any(tools[name].annotations.read_only_hint for name in DEEDS)
        assert "cannot be retried" in await assistant.refusal("retry_run", **of)
        await assistant.call("pause_run", **of, reason="we look into it")
        held = (await run.run()).pause
        assert ("ann", "we look into it") == (held["by"], held["reason"])
        await assistant.call("resume_run", **of)
        await assistant.call("signal_run", **of, name="approve", value="a secret")
        assert "a secret" == await run.result("30s")
        other = await ow.run_workflow(approval)
        await assistant.call("cancel_run", run_id=str(other.id))
        assert (await other.status()).finished
        await eventually(lambda: len(assistant.audit()) == 5)
        audit = assistant.audit()

    assert [
        ("retry", "InvalidRunState"),
        ("pause", "done"),
        ("resume", "done"),
        ("signal", "done"),
        ("cancel", "done"),
    ] == [(each["what"], each["outcome"]) for each in audit]
    assert {("ann", "operator", "default")} == {
        (each["who"], each["role"], each["namespace"]) for each in audit
    }
    assert "secret" not in (tmp_path / "stderr").read_text()


async def test_values_are_hidden_where_they_are_to_be(
    tmp_path: Path, database_url: str, ow: OpenWorkflow, start_worker: StartWorker
) -> None:
    await start_worker(ship)
    run = await ow.run_workflow(ship, 4242)
    await ow.wait(run.id, "30s")
    async with asked(tmp_path, database_url, "--hide-values") as assistant:
        shown = await assistant.call("show_run", run_id=str(run.id))
    assert ("(hidden)", "(hidden)") == (shown["input"], shown["output"])
    assert "xxx" not in json.dumps(shown)
    assert "4242" not in json.dumps(shown).replace(str(run.id), "")


async def test_a_database_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    done = await command(tmp_path, "postgresql://ann:secret@127.0.0.1:1/none", "mcp")
    assert (1, "") == (done.code, done.out)
    assert done.err.startswith("error: ")
    assert "secret" not in done.err
