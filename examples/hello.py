"""The smallest program: a workflow of three steps, its worker and its client in one process.

    export DATABASE_URL=postgresql://user:password@localhost:5432/database
    python examples/hello.py

Without a database: `openworkflow dev examples/hello.py` brings one, and serves the workflow.
"""

import asyncio
import os
from dataclasses import dataclass

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow


@dataclass(frozen=True)
class Greeting:
    name: str
    language: str = "en"


async def look_up(language: str) -> str:
    """A step: any function. What it returns is recorded, and never computed again."""
    return {"en": "Hello", "fr": "Bonjour", "de": "Guten Tag"}[language]


async def deliver(text: str) -> int:
    print(text)
    return len(text)


@workflow
async def hello(input: Greeting, step: Step) -> str:
    """Kill the worker anywhere in here: another one goes on after the last recorded step."""
    word = await step.run("look-up", look_up, input.language)
    await step.sleep("a-moment", "200ms")
    await step.run("deliver", deliver, f"{word}, {input.name}!")
    return f"{word}, {input.name}!"


async def main() -> None:
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[hello], concurrency=10)
    await worker.start()
    run = await ow.run_workflow(hello, Greeting("world"))
    print("the run returned:", await run.result(timeout="30s"))
    await worker.stop()
    await backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
