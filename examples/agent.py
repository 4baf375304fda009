"""A support agent: a model decides, tools act, and a person approves what costs money.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/agent.py                 # asks on this terminal; --yes approves
    pytest -o asyncio_mode=auto examples/test_agent.py

Each call of the model and each tool is a step. After a crash no call is paid for again, and the
conversation goes on as it was. A tool that spends money waits for a signal first: as a row in
PostgreSQL, for a day, through deploys. Whoever decides may do so from elsewhere:

    openworkflow runs list --where tag.approval:waits
    openworkflow signal RUN-ID approve-c2 --value '{"by": "ann", "granted": true}'

`ask_model` stands for your provider, so that the example needs no key and no network.
"""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from openworkflow import (
    BackendPostgres,
    NonRetryableError,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    current_step,
    workflow,
)

MOST_TURNS = 10
PATIENT = RetryPolicy(max_attempts=6, initial="2s", max_delay="5m")


@dataclass
class Call:
    """A tool that the model asks for."""

    id: str
    tool: str
    order: int
    amount: int = 0


@dataclass
class Message:
    role: str
    text: str
    calls: list[Call] = field(default_factory=list)


@dataclass
class Decision:
    by: str
    granted: bool


async def ask_model(messages: list[Message]) -> Message:
    """The next message of the conversation. Here a model of three sentences."""
    said = [message.text for message in messages if message.role == "tool"]
    if not said:
        return Message("model", "Let me look.", [Call("c1", "look_up", order=7)])
    if len(said) == 1:
        return Message("model", "I refund it.", [Call("c2", "refund", order=7, amount=80)])
    return Message("model", f"About your order: {said[-1]}.")


async def look_up(call: Call) -> str:
    return f"order {call.order} was a lamp for 80"


async def refund(call: Call) -> str:
    """The key makes the bank ignore a second request, where a crash made us send two."""
    print(f"bank: {call.amount} for order {call.order} [Idempotency-Key: {current_step().key}]")
    return f"{call.amount} were refunded"


TOOLS = {"look_up": look_up, "refund": refund}
SPENDS = {"refund"}


@workflow
async def support(question: str, step: Step) -> str:
    messages = [Message("user", question)]
    for _ in range(MOST_TURNS):
        answer = await step.run("model", ask_model, messages, retry=PATIENT)
        messages.append(answer)
        step.emit("said", answer.text)
        if not answer.calls:
            return answer.text
        results = await asyncio.gather(*(use(call, step) for call in answer.calls))
        messages.extend(Message("tool", result) for result in results)
    raise NonRetryableError(f"the model asked for tools {MOST_TURNS} times")


async def use(call: Call, step: Step) -> str:
    """The result of a tool, or why there is none: the model reads either."""
    if call.tool not in TOOLS:
        return f"there is no tool {call.tool}"
    if call.tool in SPENDS:
        decision = await approval(call, step)
        if not decision.granted:
            return f"{call.tool} was refused by {decision.by}"
    return await step.run(f"{call.tool}-{call.id}", TOOLS[call.tool], call, retry=PATIENT)


async def approval(call: Call, step: Step) -> Decision:
    """What a person says within a day; then it counts as refused."""
    step.tag(approval="waits")
    step.emit("approve", {"signal": f"approve-{call.id}", "call": vars(call)})
    nobody = Decision("nobody, for a day", granted=False)
    decision = await step.wait_for_signal(
        f"approve-{call.id}", type=Decision, timeout="1d", default=nobody
    )
    step.tag(approval="given" if decision.granted else "refused")
    return decision


async def answer_questions(run: RunHandle[Any]) -> None:
    """Show what the agent says, and ask a person on this terminal."""
    async for event in run.events():
        if event.topic == "said":
            print(f"agent: {event.value}")
            continue
        amount, order = event.value["call"]["amount"], event.value["call"]["order"]
        question = f"refund {amount} for order {order}? [y/n] "
        said = "y" if "--yes" in sys.argv else await asyncio.to_thread(input, question)
        await run.signal(event.value["signal"], Decision("ann", said == "y"))


async def main() -> None:
    async with await BackendPostgres.connect(os.environ["DATABASE_URL"]) as backend:
        ow = OpenWorkflow(backend)
        async with ow.new_worker(workflows=[support]):
            run = await ow.run_workflow(support, "My lamp came broken.")
            await answer_questions(run)
            print("the run returned:", await run.result())


if __name__ == "__main__":
    asyncio.run(main())
