"""An agent of Pydantic AI whose worker is killed halfway, and what is paid twice: nothing.

    pip install 'openworkflow-fleet[pydantic-ai]'
    DATABASE_URL=postgresql://... python examples/agent_pydantic_ai.py

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

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from openworkflow import BackendPostgres, OpenWorkflow, workflow
from openworkflow.agents.pydantic_ai import OpenWorkflowDurability

BILL = Path(os.environ.get("BILL", os.devnull))
"""Every call of a model or tool is a line here, whichever process has made it."""


def charge(what: str) -> None:
    with BILL.open("a") as bill:
        bill.write(f"{what}\n")


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stands for a model, which costs money: in your agent, write "openai:gpt-5"."""
    if len(messages) == 1:
        charge("first request")
        calls = [ToolCallPart("price_of", {"item": item}) for item in ("book", "lamp")]
        return ModelResponse(parts=calls)
    if os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    charge("second request")
    return ModelResponse(parts=[TextPart("The lamp is cheaper.")])


agent = Agent(FunctionModel(answer), name="shop", capabilities=[OpenWorkflowDurability()])


@agent.tool_plain
async def price_of(item: str) -> int:
    charge(f"price of {item}")
    return {"book": 20, "lamp": 12}[item]


@workflow
async def advise(question: str) -> str:
    return (await agent.run(question)).output


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
