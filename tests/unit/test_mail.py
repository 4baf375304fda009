"""The mail of a worker whose codecs take long: it is one run's matter, and keeps its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest

from openworkflow.backend.records import Delivery, Waiting
from openworkflow.codecs.payloads import Payloads
from openworkflow.codecs.protocol import Encoded, Place
from openworkflow.core.envelope import Envelope
from openworkflow.core.errors import CodecError, PayloadUnreadable
from openworkflow.core.ids import uuid7
from openworkflow.core.recorded import Awaited, Message
from openworkflow.engine.inbox import Inbox
from openworkflow.engine.mail import Family, Mail
from openworkflow.worker.opened import OpenedMail
from tests import virtual_time

SEALED = Envelope(("away",), b'"text"').text()


class Away:
    """A codec whose store answers when it is told to."""

    name = "away"

    def __init__(self) -> None:
        self.answers, self.asked = asyncio.Event(), 0
        self.error: Exception | None = None

    def encode(self, data: bytes, place: Place) -> Encoded | None:
        return None

    async def decode(self, data: bytes, note: str, place: Place) -> bytes:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return data


class Letters:
    """A post that has messages by run."""

    def __init__(self, messages: dict[UUID, list[Message]]) -> None:
        self.messages = messages
        self.reads = 0

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        self.reads += 1
        return {
            each.run_id: Delivery(self.reads, list(self.messages.get(each.run_id, [])))
            for each in waiting
        }

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        return set()

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        return {}

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        return set()

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        return {}


def waiting(mail: Mail) -> Inbox:
    inbox = Inbox(mail, uuid7(), 0, {})
    inbox.open("go")
    return inbox


def letter(payload: str) -> Message:
    return Message(uuid7(), "go", payload)


def of_worker(away: Away, letters: Letters) -> Mail:
    return Mail(letters, OpenedMail(Payloads([away], "default", 1_000_000)))


async def answered(*looks: asyncio.Task[bool]) -> bool:
    done, _ = await asyncio.wait(looks, timeout=1.0)
    return len(done) == len(looks)


class Hand:
    """Who waits for a signal, and takes any."""

    def __init__(self) -> None:
        self.message: Message | None = None

    def may_take(self, message: Message) -> bool:
        return True


def handed(inbox: Inbox) -> Message | None:
    return inbox.hand("go", Hand())


def look(inbox: Inbox) -> asyncio.Task[bool]:
    return asyncio.ensure_future(inbox.look())


def test_a_store_that_does_not_answer_keeps_no_other_run_from_its_mail() -> None:
    async def scene() -> None:
        away, letters = Away(), Letters({})
        mail = of_worker(away, letters)
        stalled, well, later = waiting(mail), waiting(mail), waiting(mail)
        letters.messages = {stalled.run_id: [letter(SEALED)], well.run_id: [letter("1")]}

        first = look(stalled)
        assert await answered(look(well))
        assert await answered(look(later))
        assert not first.done()
        taken = handed(well)
        assert taken is not None
        assert taken.payload == "1"

        away.answers.set()
        assert await answered(first)
        taken = handed(stalled)
        assert taken is not None
        assert taken.payload == '"text"'

    virtual_time.run(scene())


def test_what_is_read_while_the_store_is_asked_is_delivered_after_it() -> None:
    async def scene() -> None:
        away, letters = Away(), Letters({})
        inbox = waiting(of_worker(away, letters))
        sealed, plain = letter(SEALED), letter("2")
        letters.messages = {inbox.run_id: [sealed]}
        first = look(inbox)
        await asyncio.sleep(0.1)
        letters.messages = {inbox.run_id: [plain]}
        second = look(inbox)
        assert not await answered(second)

        away.answers.set()
        assert await answered(first, second)
        taken: list[Any] = [handed(inbox), handed(inbox)]
        assert [each.id for each in taken] == [sealed.id, plain.id]

    virtual_time.run(scene())


def test_what_cannot_be_opened_is_an_error_of_its_run_alone() -> None:
    async def scene() -> None:
        away, letters = Away(), Letters({})
        away.error = CodecError("the object is gone")
        away.answers.set()
        mail = of_worker(away, letters)
        broken, well = waiting(mail), waiting(mail)
        letters.messages = {broken.run_id: [letter(SEALED)], well.run_id: [letter("1")]}

        looks = look(broken), look(well)
        assert await answered(*looks)
        assert isinstance(looks[0].exception(), PayloadUnreadable)
        assert looks[1].result()
        assert letters.reads == 1

    virtual_time.run(scene())


def test_a_codec_that_never_answers_is_given_up() -> None:
    """The run kept its slot until the worker ended, and a client waited for good."""

    async def scene() -> None:
        away, letters = Away(), Letters({})
        inbox = waiting(of_worker(away, letters))
        letters.messages = {inbox.run_id: [letter(SEALED)]}
        async with asyncio.timeout(61):
            with pytest.raises(PayloadUnreadable, match="has not answered for 60 s"):
                await inbox.look()
        assert away.asked == 1

    virtual_time.run(scene())


@pytest.mark.parametrize("runs", [200])
def test_runs_whose_store_fails_wait_for_it_side_by_side(runs: int) -> None:
    """One after another they took four seconds each, and all others of the worker waited."""

    async def scene() -> None:
        away, letters = Away(), Letters({})
        away.error = ConnectionError("the store is away")
        away.answers.set()
        mail = of_worker(away, letters)
        broken = [waiting(mail) for _ in range(runs)]
        letters.messages = {each.run_id: [letter(SEALED)] for each in broken}
        looks = [look(each) for each in broken]
        well = waiting(mail)
        assert await answered(look(well))
        async with asyncio.timeout(5):
            await asyncio.wait(looks)
        assert all(isinstance(each.exception(), PayloadUnreadable) for each in looks)

    virtual_time.run(scene())
