"""What the inboxes of a worker share: those that want to be read at one time share a statement.

What codecs have encoded of it is opened for each run by itself, so that a store that does not
answer keeps no other run from its mail.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from openworkflow.backend.records import Delivery, Waiting
from openworkflow.core.errors import BackendError, Fault
from openworkflow.core.recorded import Awaited, ChildState
from openworkflow.engine.inbox import Inbox, Key

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


class Opener(Protocol):
    """Opens what is encoded of what was read."""

    def has_to(self, delivery: Delivery, states: Mapping[Awaited, ChildState]) -> bool:
        """Whether there is anything to open."""

    async def open(self, delivery: Delivery, states: dict[Awaited, ChildState]) -> None:
        """Put the plain values in place. Raises PayloadUnreadable; may take as long as it likes."""


class _Request(NamedTuple):
    inbox: Inbox
    subscribe: bool
    done: "asyncio.Future[bool]"


class _Read(NamedTuple):
    inbox: Inbox
    delivery: Delivery | None
    states: dict[Awaited, ChildState]
    opened: int
    requests: Sequence[_Request]
    busy: set[Key]

    def deliver(self) -> None:
        """Give it to whom it is for, and an answer to who has asked."""
        inbox = self.inbox
        if self.delivery is not None:
            inbox.deliver(self.delivery, self.states)
        inbox.read = max(inbox.read, self.opened)
        for request in self.requests:
            if not request.done.done():
                request.done.set_result(self.busy.isdisjoint([*inbox.names, *inbox.family]))

    def refuse(self, error: Exception) -> None:
        """Answer that it cannot be opened."""
        for request in self.requests:
            if not request.done.done():
                request.done.set_exception(error)


class Mail:
    """The inboxes of a worker."""

    def __init__(self, post: Post, opener: Opener | None = None) -> None:
        self._post, self._opener = post, opener
        self._opening: set[asyncio.Task[None]] = set()
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
                return
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
        requests: dict[UUID, list[_Request]] = {run_id: [] for run_id in inboxes}
        for request in batch:
            requests[request.inbox.run_id].append(request)
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
            self._hand_over(_Read(inbox, delivery, states, opened[run_id], requests[run_id], busy))

    def _hand_over(self, read: _Read) -> None:
        """Deliver what was read of one run, whose codecs may take time that is no other's."""
        opener, delivery, inbox = self._opener, read.delivery, read.inbox
        to_open = opener and delivery and opener.has_to(delivery, read.states)
        if not to_open and not inbox.order.locked():
            read.deliver()
            return
        task = asyncio.get_running_loop().create_task(self._open(read), name="openworkflow mail")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, read: _Read) -> None:
        async with read.inbox.order:
            try:
                if self._opener is not None and read.delivery is not None:
                    await self._opener.open(read.delivery, read.states)
                read.deliver()
            except Exception as error:
                read.refuse(error)

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
