"""Signals in the engine, without a database: what is parked, and what is seen in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from openworkflow import SignalTimeout, Step
from openworkflow.backend.records import Delivery, Waiting
from openworkflow.core.errors import BackendError, ConfigurationError, ConnectionLost, Fault
from openworkflow.core.recorded import Awaited, Message
from openworkflow.engine import mail as mails
from openworkflow.engine.execution import Execution
from openworkflow.engine.inbox import Inbox
from openworkflow.engine.mail import Family, Mail
from openworkflow.engine.outcome import Completed, Parked, Released
from tests.executions import failed, in_virtual_time, moments, prepared, quick, slow, statuses
from tests.memory import Run


class Letters:
    """A post office in memory; `reads` counts the statements."""

    def __init__(self) -> None:
        self.messages: list[tuple[UUID | None, Message]] = []
        self.wake_no = 0
        self.busy: set[str] = set()
        self.subscribed: list[tuple[UUID, str]] = []
        self.reads = 0
        self.errors: list[Exception] = []
        self.gate: asyncio.Event | None = None

    def send(
        self, run: Run | None, name: str, value: Any = None, sent_at: datetime | None = None
    ) -> UUID:
        message = Message(uuid4(), name, json.dumps(value), run is None, sent_at)
        self.messages.append((run.id if run is not None else None, message))
        self.wake_no += 1
        return message.id

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        self.reads += 1
        if self.errors:
            raise self.errors.pop(0)
        found = {
            each.run_id: Delivery(
                self.wake_no,
                [
                    message
                    for to, message in self.messages
                    if to in (None, each.run_id)
                    and message.name in each.names
                    and message.id not in (*each.had, *each.had_of_topics)
                ],
            )
            for each in waiting
        }
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        pairs = list(pairs)
        self.subscribed += [pair for pair in pairs if pair[1] not in self.busy]
        return {topic for _, topic in pairs if topic in self.busy}

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        raise AssertionError("no children here")

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        raise AssertionError("no children here")

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        if self.errors:
            raise self.errors.pop(0)
        self.reads += 1
        return dict.fromkeys(run_ids, self.wake_no)


def begun(run: Run, letters: Letters, **claim: Any) -> tuple[Execution, Mail]:
    """An execution whose mail comes from these letters."""
    execution = run.execution(**claim)
    mail = Mail(letters)
    object.__setattr__(execution.services, "mail", mail)
    return execution, mail


async def outcome(run: Run, letters: Letters, **claim: Any) -> Any:
    execution, mail = begun(run, letters, **claim)
    ended = await run.start(execution)
    run.journal.flush()
    assert not mail, "nobody waits any more"
    return ended


@in_virtual_time
async def test_a_run_that_waits_parks_with_what_it_has_seen() -> None:
    async def function(step: Step) -> None:
        await step.wait_for_signal("a")
        await step.wait_for_signal("b")

    run, letters = prepared(function), Letters()
    letters.send(run, "a")
    letters.send(run, "c")

    assert Parked(None, 2) == await outcome(run, letters, wake_no=0)
    assert {"a": "succeeded", "b": "running"} == statuses(run)
    letters.send(run, "b")
    assert Completed(None) == await outcome(run, letters, wake_no=3)


@in_virtual_time
async def test_a_wait_takes_over_the_row_that_it_began_and_its_time() -> None:
    async def function(step: Step) -> None:
        await step.wait_for_signal("a", timeout="2d")

    run, letters = prepared(function), Letters()
    first = await outcome(run, letters)
    again = await outcome(run, letters)

    assert first == again
    assert 1 == len(run.steps)
    run.wake()
    failed(await outcome(run, letters), SignalTimeout.__name__, "no signal 'a'")


@in_virtual_time
async def test_what_came_before_the_time_was_over_counts_however_late_it_is_looked_at() -> None:
    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a", timeout="2d")

    run, letters = prepared(function), Letters()
    await outcome(run, letters)
    letters.send(run, "a", 7)
    run.wake()

    assert Completed("7") == await outcome(run, letters)


@in_virtual_time
async def test_a_run_is_not_parked_with_a_signal_that_is_only_in_its_memory() -> None:
    """One branch waits; what another reads, for its own wait, has the signal of the first."""

    async def function(step: Step) -> list[Any]:
        async def later() -> Any:
            await step.run("work", slow, 5)
            return await step.wait_for_signal("b", type=int)

        return list(await asyncio.gather(step.wait_for_signal("a", type=int), later()))

    run, letters = prepared(function), Letters()
    execution, _ = begun(run, letters)
    task = run.start(execution)
    await moments()
    letters.send(run, "a", 1)  # nobody hears of it

    ended = await task

    assert "succeeded" == statuses(run)["a"]
    assert Parked(None, 1) == ended


@in_virtual_time
async def test_what_is_heard_while_the_inbox_is_read_makes_it_be_read_again() -> None:
    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a", timeout=2)

    run, letters = prepared(function), Letters()
    letters.gate = asyncio.Event()
    execution, mail = begun(run, letters)
    task = run.start(execution)
    for reads in (1, 2):
        while letters.reads < reads:
            await asyncio.sleep(0)
        if reads == 1:
            letters.gate.set()
            await moments(2)
            letters.gate = asyncio.Event()
    letters.send(run, "a", 7)  # after the second read has looked, before its answer is here
    mail.hear(run.id)
    letters.gate.set()

    assert Completed("7") == await task


@in_virtual_time
async def test_a_branch_in_memory_hears_at_once_or_by_a_poll() -> None:
    async def function(step: Step) -> Any:
        got, _ = await asyncio.gather(step.wait_for_signal("a"), step.run("slow", slow, 100))
        return got

    for heard in (True, False):
        run, letters = prepared(function), Letters()
        execution, mail = begun(run, letters)
        polls = asyncio.get_running_loop().create_task(mail.poll(lambda: True))
        task = run.start(execution)
        await moments()
        letters.send(run, "a", 7)
        if heard:
            mail.hear(run.id)
            mail.hear(uuid4())
            await moments()
        else:
            await asyncio.sleep(mails.POLL_SECONDS)
            await moments()

        assert "succeeded" == statuses(run)["a"]
        assert Completed("7") == await task
        polls.cancel()


@in_virtual_time
async def test_inboxes_that_are_read_at_the_same_time_share_a_statement() -> None:
    letters = Letters()
    mail = Mail(letters)
    boxes = [Inbox(mail, uuid4(), 0, {}) for _ in range(50)]
    for box in boxes:
        box.open("a")

    await asyncio.gather(*(box.look() for box in boxes))

    assert letters.reads <= 2


@in_virtual_time
async def test_a_silent_database_is_asked_again_and_one_that_refuses_costs_one_run_only() -> None:
    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a")

    run, letters = prepared(function), Letters()
    letters.send(run, "a", 7)
    letters.errors = [ConnectionLost("silent"), ConnectionLost("silent")]
    assert Completed("7") == await outcome(run, letters)

    refused = prepared(function)
    letters.errors = [BackendError("no right to read")]
    assert isinstance(await outcome(refused, letters), Released)


@pytest.mark.parametrize("fault", [Fault.MOMENT, Fault.SIZE])
@in_virtual_time
async def test_a_lock_or_a_time_limit_costs_a_look_time_and_its_run_nothing(fault: Fault) -> None:
    """They were handed back for half a minute, and called an internal error."""

    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a")

    run, letters = prepared(function), Letters()
    letters.send(run, "a", 7)
    letters.errors = [BackendError("locked").of(fault) for _ in range(3)]

    assert Completed("7") == await outcome(run, letters)


@in_virtual_time
async def test_whatever_a_look_raises_reaches_those_who_wait_for_it() -> None:
    """They waited forever, in their slots."""

    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a")

    run, letters = prepared(function), Letters()
    letters.errors = [KeyError("a column")]

    async with asyncio.timeout(60):
        assert isinstance(await outcome(run, letters), Released)


@in_virtual_time
async def test_the_poll_for_signals_survives_whatever_a_look_raises() -> None:
    """It is a service of the worker, which would end with it."""

    async def function(step: Step) -> Any:
        """Of no interest."""

    letters, run = Letters(), prepared(function)
    mail = Mail(letters)
    inbox = Inbox(mail, run.id, 0, {})
    heard: list[bool] = []
    inbox.open("a")
    inbox.on_news("a", lambda: heard.append(True))
    letters.errors = [KeyError("a column")]
    letters.wake_no = 1

    polling = asyncio.create_task(mail.poll(lambda: True))
    await asyncio.sleep(2 * mails.POLL_SECONDS)
    polling.cancel()

    assert [True] == heard


@in_virtual_time
async def test_a_topic_that_is_being_sent_to_is_looked_at_again() -> None:
    async def function(step: Step) -> Any:
        return await step.wait_for_signal("t")

    run, letters = prepared(function), Letters()
    letters.busy = {"t"}
    start = run.journal.clock.now()

    parked = await outcome(run, letters)

    assert isinstance(parked, Parked)
    assert parked.resume_at is not None
    assert 1 == (parked.resume_at - start).total_seconds()
    letters.busy = set()
    assert Parked(None, 0) == await outcome(run, letters)
    assert [(run.id, "t")] == letters.subscribed
    letters.send(None, "t", 7)
    assert Completed("7") == await outcome(run, letters)
    assert '"topic": "t"' in (run.steps[0].context or "")


@in_virtual_time
async def test_of_a_late_row_and_a_newer_one_that_took_the_same_signal_the_newer_counts() -> None:
    """A lost claim's row became durable after the next claim had read the history."""

    async def function(step: Step) -> list[Any]:
        return list(await asyncio.gather(*(step.wait_for_signal("n", type=int) for _ in "ab")))

    run, letters = prepared(function), Letters()
    one, two = letters.send(run, "n", 1), letters.send(run, "n", 2)
    await outcome(run, letters)
    first, second = run.steps
    context = json.dumps(json.loads(second.context or "{}") | {"message": str(one)})
    newer = second._replace(claim_no=2, context=context, output="1", completion_no=1)
    run.claim_no = 2

    ended = await run.start(with_letters(run.execution([first, newer]), letters))

    assert Completed("[2,1]") == ended
    assert two is not None


def with_letters(execution: Execution, letters: Letters) -> Execution:
    object.__setattr__(execution.services, "mail", Mail(letters))
    return execution


@in_virtual_time
async def test_a_wait_that_the_workflow_cancels_takes_nothing() -> None:
    async def function(step: Step) -> Any:
        try:
            async with asyncio.timeout(5):
                await step.wait_for_signal("a")
        except TimeoutError:
            pass
        await step.run("work", quick)
        return await step.wait_for_signal("a", type=int)

    run, letters = prepared(function), Letters()
    await outcome(run, letters)
    run.wake()
    await outcome(run, letters)
    letters.send(run, "a", 7)

    assert Completed("7") == await outcome(run, letters)
    assert 1 == len([row for row in run.steps if '"message"' in (row.context or "")])


@in_virtual_time
async def test_a_default_is_what_the_code_says_now_and_an_error_where_it_says_none() -> None:
    def waiting(*default: Any) -> Any:
        async def function(step: Step) -> Any:
            if default:
                got = await step.wait_for_signal("a", timeout=0, default=default[0])
            else:
                got = await step.wait_for_signal("a", timeout=0)
            await step.sleep("replay", "1d")
            return got

        return function

    for before, after, expected in (((1,), (2,), "2"), ((1,), (), None), ((), (3,), None)):
        run, letters = prepared(waiting(*before)), Letters()
        first = await outcome(run, letters)
        if not before:
            failed(first, SignalTimeout.__name__)
            continue
        run.wake()
        run.workflow = prepared(waiting(*after)).workflow
        again = await outcome(run, letters)
        if expected is None:
            failed(again, SignalTimeout.__name__)
        else:
            assert Completed(expected) == again


@pytest.mark.parametrize(
    ("options", "error"), [({"timeout": "soon"}, "soon"), ({"type": "Nowhere"}, "annotation")]
)
@in_virtual_time
async def test_what_cannot_be_waited_for_is_refused(options: Any, error: str) -> None:
    async def function(step: Step) -> Any:
        return await step.wait_for_signal("a", **options)

    failed(await outcome(prepared(function), Letters()), ConfigurationError.__name__, error)
