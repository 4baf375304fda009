"""A run that tells what it does, and somebody who reads along.

    DATABASE_URL=postgresql://... python examples/progress.py

What the workflow emits comes once, whatever is cut short; what a step emits comes again with each
attempt, and says which one it is from.
"""

import asyncio
import os

from openworkflow import BackendPostgres, OpenWorkflow, Step, current_step, workflow


async def answer(question: str) -> str:
    """What a language model would stream."""
    words = f"{question} is a good question".split()
    for word in words:
        current_step().emit("tokens", word)
        await asyncio.sleep(0.05)
    return " ".join(words)


@workflow
async def ask_twice(question: str, step: Step) -> list[str]:
    step.tag(stage="asking")
    answers = []
    for number in range(2):
        step.set_status({"answers": number, "of": 2})
        answers.append(await step.run("answer", answer, f"{question} {number}"))
        step.emit("answers", answers[-1])
    step.set_status("done")
    step.tag(stage="done")
    return answers


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[ask_twice])
    await worker.start()

    run = await ow.run_workflow(ask_twice, "why")
    async for event in run.events():
        print(f"{event.offset:2} {event.topic}: {event.value}")
    print("status:", (await run.progress()).status)
    found = await ow.list_runs(where="tag.stage:done workflow:ask-twice")
    print("found by its tag:", run.id in [each.id for each in found.runs])

    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
