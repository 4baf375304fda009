"""Which of several resources with one database, schema and namespace id acts: the oldest."""

from __future__ import annotations

from collections.abc import Callable

from openworkflow_operator.api.spec import Key, WorkflowNamespace

Identity = tuple[object, ...]
"""Database, schema and namespace id."""


class Rivals:
    """Who claims what. `tell` hears of every resource that a change concerns."""

    def __init__(self, tell: Callable[[Key], None]) -> None:
        self._tell = tell
        self._claims: dict[Key, Identity | None] = {}
        self._rivals: dict[Identity, dict[Key, tuple[str, str]]] = {}

    def knows(self, key: Key) -> bool:
        """Whether it is known what the resource claims, be it nothing."""
        return key in self._claims

    def claim(self, resource: WorkflowNamespace, identity: Identity | None) -> None:
        """The resource wants this; None while its database is not known."""
        key = resource.key
        if self.knows(key) and self._claims[key] == identity:
            return
        self.withdraw(key)
        self._claims[key] = identity
        if identity is not None:
            rivals = self._rivals.setdefault(identity, {})
            rivals[key] = resource.rank
            if len(rivals) > 1:
                self._tell_all(identity)

    def withdraw(self, key: Key) -> None:
        """The resource is gone, or wants something else."""
        identity = self._claims.pop(key, None)
        if identity is None:
            return
        del self._rivals[identity][key]
        self._tell_all(identity)
        if not self._rivals[identity]:
            del self._rivals[identity]

    def winner(self, key: Key) -> Key | None:
        """The older resource that acts in place of this one, if there is one."""
        identity = self._claims.get(key)
        if identity is None:
            return None
        rivals = self._rivals[identity]
        oldest = min(rivals, key=rivals.__getitem__)
        return None if oldest == key else oldest

    def _tell_all(self, identity: Identity) -> None:
        for key in self._rivals[identity]:
            self._tell(key)
