"""An agent of the OpenAI Agents SDK whose worker is killed halfway; nothing is paid twice.

    pip install 'openworkflow-fleet[openai-agents]'
    DATABASE_URL=postgresql://... python examples/agent_openai.py

The first worker kills itself while it waits for the model's second answer. Another goes on from
there: the first request and the calls of tools are recorded, and not made again.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Usage, function_tool
from agents.testing import assistant_message, function_call

from openworkflow import BackendPostgres, OpenWorkflow, workflow
from openworkflow.agents.openai_agents import DurableRunner

BILL = Path(os.environ.get("BILL", os.devnull))
"""Every call of a model or tool is a line here, whichever process has made it."""


def charge(what: str) -> None:
    with BILL.open("a") as bill:
        bill.write(f"{what}\n")


class Scripted(Model):
    """Stands for a model, which costs money: in your agent, write "gpt-5"."""

    async def get_response(
        self, system_instructions: Any, input: Any, *arguments: Any, **options: Any
    ) -> ModelResponse:
        if len(input) == 1:
            charge("first request")
            items = ("book", "lamp")
            calls = [function_call("price_of", {"item": each}, call_id=each) for each in items]
            return ModelResponse(calls, Usage(), None)
        if os.environ.get("DIES"):
            os.kill(os.getpid(), signal.SIGKILL)
        charge("second request")
        return ModelResponse([assistant_message("The lamp is cheaper.")], Usage(), None)

    def stream_response(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


@function_tool
async def price_of(item: str) -> int:
    """The price of an item."""
    charge(f"price of {item}")
    return {"book": 20, "lamp": 12}[item]


agent = Agent(name="shop", model=Scripted(), tools=[price_of])
runner = DurableRunner()


@workflow
async def advise(question: str) -> str:
    config = RunConfig(tracing_disabled=True)  # there is no key to send traces with
    return str((await runner.run(agent, question, run_config=config)).final_output)


async def serve() -> None:
    async with await BackendPostgres.connect(os.environ["DATABASE_URL"]) as backend:
        # A short lease, so that the second worker need not wait for long to take over.
        worker = OpenWorkflow(backend).new_worker(workflows=[advise], lease=timedelta(seconds=2))
        await worker.run_until_signal()


async def started(bill: Path, **environment: str) -> asyncio.subprocess.Process:
    """A worker as a process of its own."""
    environment = {**os.environ, **environment, "BILL": str(bill)}
    return await asyncio.create_subprocess_exec(sys.executable, __file__, "worker", env=environment)


async def main() -> None:
    async with await BackendPostgres.connect(os.environ["DATABASE_URL"]) as backend:
        run = await OpenWorkflow(backend).run_workflow(advise, "Which is cheaper?")
        with tempfile.TemporaryDirectory() as folder:
            bill = Path(folder) / "bill"
            first = await started(bill, DIES="yes")
            print(f"the first worker was killed: {await first.wait() == -signal.SIGKILL}")
            second = await started(bill)
            try:
                print(f"the second one's answer: {await run.result('60s')}")
            finally:
                second.terminate()
                await second.wait()
            paid = Counter(bill.read_text().splitlines())
    print("\n".join(f"{what}: {count}" for what, count in sorted(paid.items())))
    print(f"paid twice: {sum(count > 1 for count in paid.values())}")


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["worker"] else main())
