"""Signals on their way to the runs that wait for them, and news of children on theirs.

An `Inbox` is that of one execution. It is read when a wait begins, and again when somebody says
that there is news; a park carries the `wake_no` that was read together with the messages, so that
what came since makes the run due at once. What is heard says only that it is worth a look, and a
poll beneath finds what was not heard.

Runs that wait for no signal and no child have no inbox; `mail` reads those of a worker.

What is waited for is a name, of signals, or an `Awaited`: a child, or the children of a map.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from openworkflow.backend.records import Delivery, Waiting
from openworkflow.core.recorded import Awaited, ChildState, Message
from openworkflow.engine.letters import Holder, Letters

if TYPE_CHECKING:
    from openworkflow.engine.mail import Mail

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
        self.order = asyncio.Lock()
        """Held while what was read is being opened: it is delivered in the order of reading."""
        self.changes = self.waiting = 0
        """How often something came or changed hands; how many waits go on."""
        self._mail, self._had = mail, dict(had)
        self._letters = Letters()
        self._states: dict[Awaited, ChildState] = {}
        self._names: dict[Key, int] = {}
        self._waiting: dict[Key, list[Callable[[], None]]] = {}

    def open(self, name: Key) -> None:
        """From now on signals of this name are waited for, or these children."""
        self._names[name] = self._names.get(name, 0) + 1
        self.opened += 1
        self.waiting += 1
        self._mail.enter(self)

    def close(self, name: Key) -> None:
        """One wait for it is over."""
        self._names[name] -= 1
        self.waiting -= 1
        if not self._names[name]:
            del self._names[name]
        if not self._names:
            self._mail.leave(self)

    def hand(self, name: str, holder: Holder) -> Message | None:
        """Hand out the oldest signal of this name that is here, unless the holder has one."""
        return self._letters.hand(name, holder)

    def take(self, name: str, holder: Holder) -> None:
        """Take for good what it has in hand, if it has, and which changes hands no more."""
        self._letters.take(name, holder)

    def first(self, name: str) -> Message | None:
        """The signal that would be handed out next."""
        return self._letters.first(name)

    def give_back(self, name: str, holder: Holder) -> None:
        """Have a signal that was not taken after all be for who waits next."""
        if holder.message is not None:
            self._letters.give_back(name, holder)
            self.changes += self._names.get(name, 0) > 1
            self._wake(name)

    def leave(self, name: str, holder: Holder) -> None:
        """Have it wait no more; what it has in hand is given back, unless that is taken."""
        if self._letters.waits(name, holder):
            self.give_back(name, holder)
            self.take(name, holder)

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

    def begin_anew(self) -> None:
        """The database is another, and may know of fewer wakes: all are read again."""
        self.wake_no = 0
        self.hear()

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
                self._letters.come(message)
        # Whatever woke the run has ended subscriptions, perhaps those of others than it was for.
        told: set[Key] = {*(each.name for each in delivery.messages), *changed}
        self.changes += bool(told)
        for name in list(self._waiting) if woken else told:
            self._wake(name)

    def _wake(self, name: Key) -> None:
        waiting = self._waiting.get(name)
        while waiting:
            waiting.pop(0)()
