"""The signals that an execution has read: those that lie there, and those that somebody holds.

Whoever waits is handed a signal, and holds it until it may be taken: until what was before has
ended. That may end the wait too. Then all is as if it had never waited: the others move up, in the
order in which they asked.
"""

from collections import deque
from typing import Protocol
from uuid import UUID

from openworkflow.core.recorded import Message


class Holder(Protocol):
    """Who waits for a signal."""

    message: Message | None
    """The one that it has in hand."""

    def may_take(self, message: Message) -> bool:
        """Whether this one came in time."""


class Letters:
    """Signals by name, the oldest first."""

    def __init__(self) -> None:
        self._lying: dict[str, deque[Message]] = {}
        self._holders: dict[str, dict[Holder, None]] = {}
        """Who waits, in the order of asking."""
        self._numbers: dict[UUID, int] = {}
        """In which order they came."""

    def come(self, message: Message) -> None:
        """One was read."""
        self._numbers[message.id] = len(self._numbers)
        self._lying.setdefault(message.name, deque()).append(message)

    def first(self, name: str) -> Message | None:
        """The one that would be handed out next."""
        lying = self._lying.get(name)
        return lying[0] if lying else None

    def hand(self, name: str, holder: Holder) -> Message | None:
        """See Inbox.hand."""
        self._holders.setdefault(name, {}).setdefault(holder)
        lying = self._lying.get(name)
        if holder.message is None and lying:
            holder.message = lying.popleft()
        return holder.message

    def waits(self, name: str, holder: Holder) -> bool:
        """Whether it still waits: it may have one in hand, which is not taken for good."""
        return holder in self._holders.get(name, ())

    def take(self, name: str, holder: Holder) -> None:
        """See Inbox.take."""
        holders = self._holders.get(name, {})
        holders.pop(holder, None)
        if not holders:
            self._holders.pop(name, None)

    def give_back(self, name: str, holder: Holder) -> None:
        """See Inbox.give_back."""
        message, holder.message = holder.message, None
        for other in self._holders.get(name, ()):
            if message is None:
                return
            moves_up = other is not holder and self._is_later(other.message, message)
            if moves_up and other.may_take(message):
                other.message, message = message, other.message
        if message is not None:
            lying = self._lying.setdefault(name, deque())
            lying.insert(sum(self._is_later(message, each) for each in lying), message)

    def _is_later(self, one: Message | None, other: Message) -> bool:
        return one is None or self._numbers[one.id] > self._numbers[other.id]
