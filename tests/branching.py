"""Workflow functions with branches that hypothesis makes up, and the world that they act upon."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from openworkflow import NonRetryableError, RetryPolicy, Step, current_step

RETRY = RetryPolicy(max_attempts=3, initial=2, max_delay=8, jitter=0)
WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Fatal(Exception):
    """Ends the run, unless a task group takes it."""


@dataclass
class World:
    """Everything outside of the workflow: how long steps take, what they return, what is seen."""

    chance: random.Random
    calls: Counter[str] = field(default_factory=Counter)
    seen: list[Any] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Steps that were called although they were recorded, or that saw another branch's context."""
    recorded: Callable[[], set[str]] = set
    kind: bool = False
    """Whether no step fails for good any more."""

    async def effect(self, what: str, who: str) -> str:
        """A step: takes a while, and fails now and then."""
        key = current_step().name
        if key in self.recorded():
            self.wrong.append(f"{key} was called again")
        if WHO.get() != who:
            self.wrong.append(f"{key} sees the context of {WHO.get()}, not of {who}")
        self.calls[what] += 1
        await asyncio.sleep(self.chance.choice([0, 0, 1, 5, 30, 100]))
        if self.chance.random() < 0.1 and not self.kind:
            raise NonRetryableError(what)
        if self.chance.random() < 0.1:
            raise ValueError(what)
        return f"{what}/{self.chance.randrange(1000)}"


class Program:
    """Interprets what hypothesis made up, as a workflow function would be written by hand."""

    def __init__(self, world: World, step: Step) -> None:
        self.world, self.step = world, step
        self.lock = asyncio.Lock()

    def note(self, what: Any) -> Any:
        """Something that the workflow's code has come to know; the order counts."""
        self.step.emit("seen", str(what))
        self.world.seen.append(what)
        return what

    async def run(self, node: Any) -> Any:
        """Execute one node; the error of a step is a result like any other."""
        kind, *rest = node
        try:
            return self.note((kind, await getattr(self, kind)(*rest)))
        except (NonRetryableError, ValueError) as error:
            return self.note((kind, str(error)))

    def asked(self, name: str) -> Any:
        """A step that is not awaited so far."""
        who = WHO.get()

        async def effect(what: str) -> str:
            return await self.world.effect(what, who)

        return self.step.run(name, effect, name, retry=RETRY)

    async def call(self, name: str) -> Any:
        return await self.asked(name)

    async def must(self, name: str) -> Any:
        """A step without which the run fails."""
        try:
            return await self.asked(name)
        except (NonRetryableError, ValueError) as error:
            raise Fatal(name) from error

    async def sleep(self, seconds: int) -> Any:
        await self.step.sleep("nap", seconds)

    async def asyncio_sleep(self, seconds: int) -> Any:
        await asyncio.sleep(seconds)

    async def sequence(self, nodes: list[Any]) -> Any:
        return [await self.run(node) for node in nodes]

    async def gather(self, nodes: list[Any]) -> Any:
        return await asyncio.gather(*(self.run(node) for node in nodes))

    async def bare_gather(self, names: list[str]) -> Any:
        steps = (self.asked(name) for name in names)
        return [str(each) for each in await asyncio.gather(*steps, return_exceptions=True)]

    async def early(self, names: list[str], node: Any) -> Any:
        """Coroutines made here, and awaited later in another order."""
        made = [self.asked(name) for name in names]
        results = []
        try:
            await self.run(node)
            for each in reversed(made):
                try:
                    results.append(await each)
                except (NonRetryableError, ValueError) as error:
                    results.append(str(error))
        finally:
            for each in made:
                each.close()  # those that are not wanted any more
        return results

    async def scoped(self, nodes: list[Any]) -> Any:
        """Each branch has a context of its own, and so have its steps."""

        async def scope(number: int, node: Any) -> Any:
            WHO.set(f"{WHO.get()}.{number}")
            return await self.run(node)

        return await asyncio.gather(*(scope(n, node) for n, node in enumerate(nodes)))

    async def event(self, before: Any, after: Any) -> Any:
        """One branch goes on once another has come so far."""
        event = asyncio.Event()

        async def first() -> Any:
            try:
                return await self.run(before)
            finally:
                event.set()

        async def second() -> Any:
            await event.wait()
            return await self.run(after)

        return await asyncio.gather(second(), first())

    async def pages(self, nodes: list[Any]) -> Any:
        """An async generator that is left early, and has something to do before it goes."""
        results: list[Any] = []

        async def generate() -> AsyncIterator[Any]:
            try:
                for node in nodes:
                    yield await self.run(node)
            finally:
                results.append(await self.run(("call", "close")))

        async with contextlib.aclosing(generate()) as each:  # type: ignore[type-var]
            async for result in each:
                results.append(result)
                if len(results) == 2:
                    break
        return results

    async def group(self, nodes: list[Any]) -> Any:
        """One branch may fail: the others are cancelled by the group."""
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.fragile(node)) for node in nodes]
        except BaseExceptionGroup as errors:
            while task.cancelling() > cancelled:  # Python before 3.13 forgets to, and then a
                task.uncancel()  # timeout around the group raises CancelledError
            return ["failed", *[str(each) for each in errors.exceptions]]
        return [task.result() for task in tasks]

    async def fragile(self, node: Any) -> Any:
        result = await self.run(node)
        if isinstance(result[1], str) and "/" in result[1] and result[1].endswith("7"):
            raise ValueError(result[1])
        return result

    async def completed(self, nodes: list[Any]) -> Any:
        """What comes first decides which step is asked for next."""
        results = []
        for future in asyncio.as_completed([self.run(node) for node in nodes]):
            first = await future
            results.append(first)
            if str(first).count("/") % 2:
                results.append(await self.run(("call", "after")))
        return results

    async def first(self, nodes: list[Any]) -> Any:
        tasks = [asyncio.create_task(self.run(node)) for node in nodes]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return [task.result() for task in tasks if task in done]

    async def timeout(self, seconds: int, node: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await self.run(node)
        except TimeoutError:
            return await self.run(("call", "fallback"))

    async def wait_for(self, seconds: int, node: Any) -> Any:
        try:
            return await asyncio.wait_for(self.run(node), seconds)
        except TimeoutError:
            return "late"

    async def shielded(self, seconds: int, node: Any) -> Any:
        task = asyncio.create_task(self.run(node))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), seconds)
        self.note(("in time", task.done()))
        return await task

    async def careful(self, seconds: int, node: Any) -> Any:
        """A branch that is cancelled, and does steps before it goes."""

        async def branch() -> None:
            try:
                await self.run(node)
            finally:
                await self.run(("call", "undo"))

        task = asyncio.create_task(branch())
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "in time"

    async def queue(self, nodes: list[Any]) -> Any:
        """Two workers share a queue: who takes what depends on who is faster."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for node in nodes:
            queue.put_nowait(node)
        results: list[Any] = []

        async def work(who: int) -> None:
            while not queue.empty():
                results.append((who, await self.run(queue.get_nowait())))

        await asyncio.gather(work(1), work(2))
        return results

    async def locked(self, nodes: list[Any]) -> Any:
        order: list[Any] = []

        async def enter(node: Any) -> None:
            await self.run(node)
            async with self.lock:
                order.append(await self.run(("call", "inside")))

        if self.lock.locked():  # not to be taken twice by one branch
            return None
        await asyncio.gather(*(enter(node) for node in nodes))
        return order


NAMES = st.sampled_from(["a", "b", "send"])
SECONDS = st.sampled_from([0, 1, 3, 20, 60])
LEAVES = st.one_of(
    st.tuples(st.just("call"), NAMES),
    st.tuples(st.just("must"), NAMES),
    st.tuples(st.just("sleep"), SECONDS),
    st.tuples(st.just("asyncio_sleep"), SECONDS),
    st.tuples(st.just("bare_gather"), st.lists(NAMES, min_size=1, max_size=4)),
)


def _inner(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(children, min_size=2, max_size=4)
    kinds = ["sequence", "gather", "group", "completed", "first", "queue", "locked"]
    timed = ["timeout", "wait_for", "shielded", "careful"]
    return st.one_of(
        st.tuples(st.sampled_from([*kinds, "scoped", "pages"]), many),
        st.tuples(st.sampled_from(timed), SECONDS, children),
        st.tuples(st.just("early"), st.lists(NAMES, min_size=1, max_size=3), children),
        st.tuples(st.just("event"), children, children),
    )


PROGRAMS = _inner(st.recursive(LEAVES, _inner, max_leaves=10))
