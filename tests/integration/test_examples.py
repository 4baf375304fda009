"""The examples do what their text says."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
import uvicorn

from tests.helpers import eventually

ROOT = Path(__file__).parents[2]


def run_example(name: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_hello_runs_its_workflow(database_url: str) -> None:
    out = run_example("hello.py", DATABASE_URL=database_url)

    assert "Hello, world!\nthe run returned: Hello, world!\n" == out


def test_an_enqueue_in_the_callers_transaction_is_rolled_back_with_it(database_url: str) -> None:
    out = run_example("transactional_enqueue.py", DATABASE_URL=database_url)

    assert "committed, and the run returned: welcome, ada@example.com" in out
    assert "rolled back: the address is taken" in out
    assert "runs there are now more than before: 1\n" in out


async def test_a_web_service_starts_runs_in_its_transactions_and_streams_their_events(
    database_url: str, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    app = importlib.import_module("examples.fastapi_orders").app
    config = uvicorn.Config(app, port=unused_port, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_port}", timeout=60) as web:
            answer = await web.post("/orders", params={"item": "lamp"})
            assert 202 == answer.status_code, answer.text
            run = answer.json()["run"]
            events = await web.get(f"/runs/{run}/events")
            rest = await web.get(f"/runs/{run}/events", headers={"Last-Event-ID": "2"})
            page = await web.get(f"/runs/{run}/page")
            again = await web.post("/orders", params={"item": "lamp"})
            ended = await web.get(f"/runs/{run}")
            unknown = await web.get(f"/runs/{UUID(int=7)}")
    finally:
        server.should_exit = True
        await serving
    told = [json.loads(line[6:]) for line in events.text.splitlines() if line[:6] == "data: "]
    assert [0, 1, 2, 3] == [each["done"] for each in told[:-1]]
    assert "receipt for a lamp" == told[1]["last"]
    assert ['"done": 3' in rest.text, '"done": 2' in rest.text] == [True, False]
    assert 'new EventSource("events")' in page.text
    assert 'event: run.ended\ndata: {"status": "succeeded"}' in events.text
    assert (409, 404) == (again.status_code, unknown.status_code)
    assert {"status": "succeeded", "output": "receipt for a lamp"} == ended.json()
    connection = await asyncpg.connect(database_url)
    assert 1 == await connection.fetchval("select count(*) from workflow_runs")
    await connection.close()


def test_a_schedule_is_declared_triggered_and_backfilled(database_url: str) -> None:
    out = run_example("schedules.py", DATABASE_URL=database_url)

    assert "daily-report runs at 06:00 on Monday through Friday (Europe/Berlin)\n" in out
    assert "run by hand: the figures of 20" in out
    assert "runs for the first week of March: 5\nand again: 0\n" in out


def test_a_trip_is_given_back(database_url: str) -> None:
    out = run_example("trip.py", DATABASE_URL=database_url)

    first, second = out.split("failed: no flights to Atlantis\n")
    assert 2 == first.count("booked: ") == first.count("given back: ")
    assert 3 == second.count("booked: ") == second.count("given back: ")
    assert second.endswith("canceled, and nothing is left behind\n")


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # A short path: a Unix socket lives in it.
    with tempfile.TemporaryDirectory() as folder:
        out = run_example("demo.py", TMPDIR=folder)

        assert "As promised." in out
        assert "30 of 30 runs succeeded." in out
        assert "SIGKILL" in out
        assert [] == [path.name for path in Path(folder).glob("openworkflow-demo-*")]


def test_an_agent_asks_a_person_before_it_spends(database_url: str) -> None:
    done = run_example("agent.py", "--yes", DATABASE_URL=database_url)

    assert 1 == done.count("bank: 80 for order 7")
    assert done.endswith("the run returned: About your order: 80 were refunded.\n")


def test_an_approval_comes_from_outside(database_url: str) -> None:
    out = run_example("approval.py", DATABASE_URL=database_url)

    assert "order 1 is on its way\norder 2 was refused by bob\n" in out


def test_a_run_tells_what_it_does(database_url: str) -> None:
    out = run_example("progress.py", DATABASE_URL=database_url)

    assert " 0 tokens: why\n" in out
    assert " 6 answers: why 0 is a good question\n" in out
    assert "13 answers: why 1 is a good question\nstatus: done\n" in out
    assert "found by its tag: True\n" in out


def test_an_order_runs_its_children(database_url: str) -> None:
    out = run_example("children.py", DATABASE_URL=database_url)

    assert "receipt of ann\nlabel of book, label of lamp\n" in out
    assert "5 children, of which 1 failed\nann was asked\n" in out


def test_limits_hold_for_each_customer(database_url: str) -> None:
    out = run_example("limits.py", DATABASE_URL=database_url)

    assert "2 of 2 slots in use, by run " in out
    assert " and others, behind 17 with the same" in out
    assert "at once at most: {'acme': 2, 'globex': 2}\n" in out


def test_calls_have_a_rate_and_the_urgent_run_goes_before_others(database_url: str) -> None:
    out = run_example("rates.py", DATABASE_URL=database_url)

    assert "before the last: True\nsent: 12\nlimit 'mail': 20 in 1 s\n" in out


def test_a_run_is_printed_as_traces(database_url: str) -> None:
    out = run_example("tracing.py", DATABASE_URL=database_url)

    receipt, *trees = out.splitlines()
    assert receipt == "receipt for 16 digits"
    assert trees[:2] == ["GET /checkout", "  workflow_run.create order"]
    assert "workflow_run.execute billing  <- workflow_run.create billing" in trees
    charged = trees.index("  step_attempt.execute charge")
    assert trees[charged + 1] == "    POST /charges"


@pytest.mark.parametrize(
    ("example", "module", "extra"),
    [
        ("agent_pydantic_ai.py", "pydantic_ai", "pydantic-ai"),
        ("agent_openai.py", "agents", "openai-agents"),
    ],
)
def test_an_agent_whose_worker_is_killed_pays_nothing_twice(
    database_url: str, example: str, module: str, extra: str
) -> None:
    pytest.importorskip(module, reason=f"the extra `{extra}` is not installed")
    out = run_example(example, DATABASE_URL=database_url)

    assert "the first worker was killed: True\n" in out
    assert "answer: The lamp is cheaper.\n" in out
    assert "first request: 1\nprice of book: 1\nprice of lamp: 1\nsecond request: 1\n" in out
    assert out.endswith("paid twice: 0\n")
