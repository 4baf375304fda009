"""Signals on their way to the runs that wait for them, and news of children on theirs.

An `Inbox` is that of one execution. It is read when a wait begins, and again when somebody says
that there is news; a park carries the `wake_no` that was read together with the messages, so that
what came since makes the run due at once. What is heard says only that it is worth a look, and a
poll beneath finds what was not heard.

`Mail` is what the inboxes of a worker share: those that want to be read at one time share a
statement. Runs that wait for no signal and no child have no inbox.

What is waited for is a name, of signals, or an `Awaited`: a child, or the children of a map.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from openworkflow.backend.records import Delivery, Waiting
from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.recorded import Awaited, ChildState, Message

logger = logging.getLogger(__name__)

POLL_SECONDS, BLIND_POLL_SECONDS = 5.0, 1.0
"""Between two looks whether runs that wait in memory were woken; the second while nothing is heard.
Runs that are parked need none: they become due."""
MOST_AT_ONCE = 200
"""Inboxes that are read by one statement."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 10.0
AGAIN_SECONDS = 1.0
"""Until an inbox is read again that somebody's lock, or a time limit, kept from being read."""
_PASSES = (Fault.MOMENT, Fault.SIZE)


Family = dict[UUID, tuple[int, dict[Awaited, ChildState]]]
"""By run: how often it was woken, and how those stand that it waits for."""


class Post(Protocol):
    """The database, as far as mail is concerned; see backend/messages.py."""

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        """What these runs were sent, and have not had."""

    async def subscribe(self, pairs: Iterable[tuple[UUID, str]]) -> set[str]:
        """Have topics wake runs; answers the topics that cannot be subscribed to at this moment."""

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        """How the children stand that these runs wait for."""

    async def await_children(self, pairs: Iterable[tuple[UUID, UUID]]) -> set[UUID]:
        """Have the ends of these children, second, wake their parents; answers those of others."""

    async def read_wakes(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How often these runs were woken."""


Key = str | Awaited


class Inbox:
    """What one execution was sent and has not taken, and who of it waits for more."""

    def __init__(self, mail: "Mail", run_id: UUID, wake_no: int, had: Mapping[UUID, bool]) -> None:
        self.run_id = run_id
        self.wake_no = wake_no
        """What the run was woken for up to here has been read, of every name that is waited for."""
        self.heard = False
        """Somebody said, since the last look began, that there may be news."""
        self.opened = self.read = 0
        """How many waits have begun, and how many of them had when it was last read."""
        self._mail, self._had = mail, dict(had)
        self._letters: dict[str, deque[Message]] = {}
        self._states: dict[Awaited, ChildState] = {}
        self._names: dict[Key, int] = {}
        self._waiting: dict[Key, list[Callable[[], None]]] = {}

    def open(self, name: Key) -> None:
        """From now on signals of this name are waited for, or these children."""
        self._names[name] = self._names.get(name, 0) + 1
        self.opened += 1
        self._mail.enter(self)

    def close(self, name: Key) -> None:
        """One wait for it is over."""
        self._names[name] -= 1
        if not self._names[name]:
            del self._names[name]
        if not self._names:
            self._mail.leave(self)

    def pop(self, name: str) -> Message | None:
        """The oldest signal of this name that is here; it counts as taken."""
        letters = self._letters.get(name)
        return letters.popleft() if letters else None

    def first(self, name: str) -> Message | None:
        """The signal that would be taken next."""
        letters = self._letters.get(name)
        return letters[0] if letters else None

    def give_back(self, message: Message) -> None:
        """Have a signal that was not taken after all be for who waits next."""
        self._letters.setdefault(message.name, deque()).appendleft(message)
        self._wake(message.name)

    def state(self, awaited: Awaited) -> ChildState | None:
        """How it stood when it was last read; None if it never was."""
        return self._states.get(awaited)

    async def look(self, *, subscribe: bool = False) -> bool:
        """Read it; False if a topic could not be subscribed to, and has to be looked at again.

        Raises BackendError, unless the database is silent for now: then it is asked again.
        """
        return await self._mail.read(self, subscribe=subscribe)

    def on_news(self, name: Key, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` once when there is news of this name; returns what takes that back."""
        waiting = self._waiting.setdefault(name, [])
        waiting.append(wake)

        def forget() -> None:
            if wake in waiting:
                waiting.remove(wake)

        return forget

    def hear(self) -> None:
        """There may be news: all who wait look."""
        self.heard = True
        for name in list(self._waiting):
            self._wake(name)

    # -- for the mail ----------------------------------------------------------------------------

    @property
    def unread(self) -> bool:
        """Whether it was not read since the last wait began."""
        return self.read < self.opened

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits, and nobody is about to look anyway."""
        return any(self._waiting.values())

    @property
    def names(self) -> list[str]:
        """The signals that are waited for."""
        return [name for name in self._names if isinstance(name, str)]

    @property
    def family(self) -> list[Awaited]:
        """The children that are waited for."""
        return [name for name in self._names if not isinstance(name, str)]

    def wanted(self) -> Waiting:
        """What to read."""
        had = [message for message, of_topic in self._had.items() if not of_topic]
        of_topics = [message for message, of_topic in self._had.items() if of_topic]
        return Waiting(self.run_id, self.names, had, of_topics)

    def deliver(self, delivery: Delivery, states: Mapping[Awaited, ChildState]) -> None:
        """Take in what was read."""
        woken = delivery.wake_no > self.wake_no
        self.wake_no = max(self.wake_no, delivery.wake_no)
        # What stands as it did is no news: two that wait would have each other look forever.
        changed = [each for each, state in states.items() if self._states.get(each) != state]
        self._states.update(states)
        for message in delivery.messages:
            if message.id not in self._had:  # else it was read twice at the same time
                self._had[message.id] = message.of_topic
                self._letters.setdefault(message.name, deque()).append(message)
        # Whatever woke the run has ended subscriptions, perhaps those of others than it was for.
        told: set[Key] = {*(each.name for each in delivery.messages), *changed}
        for name in list(self._waiting) if woken else told:
            self._wake(name)

    def _wake(self, name: Key) -> None:
        waiting = self._waiting.get(name)
        while waiting:
            waiting.pop(0)()


class _Request(NamedTuple):
    inbox: Inbox
    subscribe: bool
    done: "asyncio.Future[bool]"


class Mail:
    """The inboxes of a worker."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._inboxes: dict[UUID, Inbox] = {}
        """Inboxes of the runs that wait for some signal, those of their newest claim."""
        self._requests: list[_Request] = []
        self._reading: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._inboxes)

    def enter(self, inbox: Inbox) -> None:
        """From now on it hears of news."""
        self._inboxes[inbox.run_id] = inbox

    def leave(self, inbox: Inbox) -> None:
        """Drop the inbox of a run that waits for nothing any more."""
        if self._inboxes.get(inbox.run_id) is inbox:
            del self._inboxes[inbox.run_id]

    def hear(self, run_id: UUID) -> None:
        """Somebody says that this run was woken; it may be executed anywhere."""
        if (inbox := self._inboxes.get(run_id)) is not None:
            inbox.hear()

    async def read(self, inbox: Inbox, *, subscribe: bool) -> bool:
        """See Inbox.look; what is asked for at the same time shares a statement."""
        loop = asyncio.get_running_loop()
        request = _Request(inbox, subscribe, loop.create_future())
        self._ask(request)
        return await request.done

    async def poll(self, listening: Callable[[], bool]) -> None:
        """Look from time to time what was woken and not heard of; until canceled."""
        while True:
            pause = POLL_SECONDS if listening() else BLIND_POLL_SECONDS
            await asyncio.sleep(pause * random.uniform(0.75, 1.0))
            waiting = {key: each for key, each in self._inboxes.items() if each.is_waited_for}
            if not waiting:
                continue
            try:
                wakes = await self._post.read_wakes(list(waiting))
            except BackendError as error:
                logger.warning("could not look for signals: %s", error)
                continue
            except Exception:  # whatever it is, the worker outlives it
                logger.exception("could not look for signals")
                continue
            for run_id, wake_no in wakes.items():
                if wake_no > waiting[run_id].wake_no:
                    waiting[run_id].hear()

    def _ask(self, request: _Request) -> None:
        if request.done.done():
            return
        self._requests.append(request)
        if self._reading is None:
            loop = asyncio.get_running_loop()
            self._reading = loop.create_task(self._read_all(), name="openworkflow mail")

    async def _read_all(self) -> None:
        try:
            while self._requests:
                batch = self._requests[:MOST_AT_ONCE]
                del self._requests[:MOST_AT_ONCE]
                await self._answer(batch)
        finally:
            self._reading = None

    async def _answer(self, batch: Sequence[_Request]) -> None:
        delay = FIRST_RETRY_SECONDS
        while batch := [request for request in batch if not request.done.done()]:
            try:
                await self._read(batch)
            except Exception as error:  # a mistake of ours too: those who wait have to hear of it
                if not isinstance(error, BackendError) or error.fault is not Fault.SERVER:
                    await self._refuse(batch, error)
                    return
                logger.warning("could not read the signals of %d runs: %s", len(batch), error)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _read(self, batch: Sequence[_Request]) -> None:
        """Children before signals: what woke a run since is read the next time, and not missed."""
        busy = await self._subscribe([each.inbox for each in batch if each.subscribe])
        inboxes = {request.inbox.run_id: request.inbox for request in batch}
        opened = {run_id: inbox.opened for run_id, inbox in inboxes.items()}
        for inbox in inboxes.values():
            inbox.heard = False
        asked = [(run_id, each) for run_id, inbox in inboxes.items() for each in inbox.family]
        family = await self._post.read_children(asked) if asked else {}
        wanted = [inbox.wanted() for inbox in inboxes.values() if inbox.names]
        found = await self._post.read_inboxes(wanted) if wanted else {}
        for run_id, inbox in inboxes.items():
            wake_no, states = family.get(run_id, (None, {}))
            delivery = found.get(run_id)
            if wake_no is not None:
                letters = [] if delivery is None else delivery.messages
                delivery = Delivery(wake_no, letters)
            if delivery is not None:
                inbox.deliver(delivery, states)
            inbox.read = opened[run_id]
        for request in batch:
            if not request.done.done():
                request.done.set_result(
                    busy.isdisjoint([*request.inbox.names, *request.inbox.family])
                )

    async def _subscribe(self, inboxes: Iterable[Inbox]) -> set[Key]:
        """Have what comes wake these; answers what does not, and has to be looked at again."""
        busy: set[Key] = set()
        pairs = {(inbox.run_id, name) for inbox in inboxes for name in inbox.names}
        if pairs:
            busy |= await self._post.subscribe(sorted(pairs))
        children = {
            (inbox.run_id, each.id) for inbox in inboxes for each in inbox.family if not each.is_map
        }
        if children:
            foreign = await self._post.await_children(sorted(children))
            busy |= {Awaited(child) for child in foreign}
        return busy

    async def _refuse(self, batch: Sequence[_Request], error: Exception) -> None:
        """Whatever is wrong with one run costs that one only; what may pass costs it time."""
        if len(batch) > 1:
            for request in batch:
                await self._answer([request])
            return
        (request,) = batch
        if isinstance(error, BackendError) and error.fault in _PASSES:
            logger.warning("could not read the signals of a run, will retry: %s", error)
            pause = AGAIN_SECONDS * random.uniform(0.5, 1.0)
            asyncio.get_running_loop().call_later(pause, self._ask, request)
        elif not request.done.done():
            request.done.set_exception(error)
