"""Which of several resources with one database, schema and namespace id acts.

The oldest of those that can read the database: a URL is only text, and whoever may write a resource
may write any. What somebody claims counts once a look with these very credentials has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.decide.observation import OUTAGES, DatabaseView, Observation

Identity = tuple[object, ...]
"""Database, schema and namespace id."""


class Proof(Enum):
    """Whether the credentials of a claim open the database."""

    OPEN = auto()
    """Not known yet."""
    PROVEN = auto()
    """A look succeeded, once; a database that cannot be read for a while changes nothing."""
    REFUSED = auto()


class Standing(Enum):
    """What a resource may do."""

    ACTS = auto()
    WAITS = auto()
    """An older one may be the one to act; change nothing until that is known."""
    YIELDS = auto()
    """An older one acts."""


@dataclass(slots=True)
class _Claim:
    rank: tuple[str, str]
    identity: Identity | None
    access: object
    proof: Proof = Proof.OPEN
    seen: int = -1
    """The last look that succeeded."""
    missed: int | None = None
    """The first look that an outage ended."""

    @property
    def claims(self) -> tuple[object, ...]:
        """What the resource says itself."""
        return (self.rank, self.identity, self.access)


class Rivals:
    """Who claims what. `tell` hears of every resource that a change concerns."""

    def __init__(self, tell: Callable[[Key], None]) -> None:
        self._tell = tell
        self._claims: dict[Key, _Claim] = {}
        self._rivals: dict[Identity, set[Key]] = {}

    def knows(self, key: Key) -> bool:
        """Whether it is known what the resource claims, be it nothing."""
        return key in self._claims

    def claim(
        self, resource: WorkflowNamespace, identity: Identity | None, access: object = None
    ) -> None:
        """The resource wants this, with these credentials; None while its database is not known."""
        key, known = resource.key, self._claims.get(resource.key)
        wanted = _Claim(resource.rank, identity, access)
        if known is not None and known.claims == wanted.claims:
            return
        self.withdraw(key)
        self._claims[key] = wanted
        if identity is not None:
            self._rivals.setdefault(identity, set()).add(key)
            self._tell_others(key)

    def learn(self, key: Key, view: DatabaseView) -> None:
        """A look with the credentials of the claim gave this.

        An outage refuses nobody, since rivals may have met it too; but one that did not get in
        before and after another one did is shut out, whatever it looks like.
        """
        if isinstance(view, Observation) or view.reason not in OUTAGES:
            self.prove(key, isinstance(view, Observation), view.serial)
            return
        claim = self._claims.get(key)
        if claim is None or claim.identity is None or claim.proof is not Proof.OPEN:
            return
        if claim.missed is None:
            claim.missed = view.serial
        others = (self._claims[each] for each in self._rivals[claim.identity] - {key})
        if any(claim.missed < other.seen < view.serial for other in others):
            self.prove(key, False)

    def prove(self, key: Key, is_open: bool, serial: int = 0) -> None:
        """The credentials of the claim opened the database, or were refused."""
        claim = self._claims.get(key)
        if claim is not None and is_open:
            claim.seen = serial
        proof = Proof.PROVEN if is_open else Proof.REFUSED
        if claim is None or claim.proof in (Proof.PROVEN, proof):
            return
        claim.proof = proof
        self._tell_others(key)

    def withdraw(self, key: Key) -> None:
        """The resource is gone, or wants something else."""
        self._tell_others(key)
        claim = self._claims.pop(key, None)
        if claim is None or claim.identity is None:
            return
        self._rivals[claim.identity].discard(key)
        if not self._rivals[claim.identity]:
            del self._rivals[claim.identity]

    def standing(self, key: Key) -> tuple[Standing, Key | None]:
        """What the resource may do, and which older one acts in its place."""
        claim = self._claims[key]
        if claim.identity is None:
            return Standing.ACTS, None
        rivals = ((self._claims[each], each) for each in self._rivals[claim.identity])
        older = sorted((c.rank, each) for c, each in rivals if c.rank < claim.rank)
        proofs = {each: self._claims[each].proof for _, each in older}
        for each, proof in proofs.items():
            if proof is Proof.PROVEN:
                return Standing.YIELDS, each
        is_known = Proof.OPEN not in proofs.values()
        if not proofs or (is_known and claim.proof is Proof.PROVEN):
            return Standing.ACTS, None
        return Standing.WAITS, None

    def _tell_others(self, key: Key) -> None:
        claim = self._claims.get(key)
        if claim is None or claim.identity is None:
            return
        for each in self._rivals[claim.identity] - {key}:
            self._tell(each)
