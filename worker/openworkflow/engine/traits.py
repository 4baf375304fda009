"""What decides whether rows of several runs may share a statement; the law is in journal.py."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from openworkflow.backend.records import (
    ChildEnd,
    Completion,
    Continuation,
    ProgressWrite,
    RunEnd,
    StepSuccess,
    StepWrite,
    Wake,
    Write,
)
from openworkflow.core.workflow_run import RunStatus


@dataclass(slots=True)
class Traits:
    """The runs that rows write to, and how."""

    parks: bool = False
    wakes: bool = False
    """Whether rows write to runs that are not known here: parents."""
    woken: set[UUID] = field(default_factory=set)
    ended: set[UUID] = field(default_factory=set)
    continued: set[UUID] = field(default_factory=set)
    stepped: set[UUID] = field(default_factory=set)
    tagged: set[UUID] = field(default_factory=set)

    @classmethod
    def of(cls, rows: Iterable[Write]) -> "Traits":
        """The traits of these rows."""
        traits = cls()
        for row in rows:
            match row:
                case StepSuccess() | StepWrite():
                    traits.stepped.add(row.run_id)
                case Completion():
                    traits.ended.add(row.run_id)
                case RunEnd():
                    traits.ended.add(row.run_id)
                    traits.parks |= row.status is RunStatus.PENDING
                case Continuation():
                    traits.ended.add(row.run_id)
                    traits.continued.add(row.run_id)
                    traits.parks = True
                case Wake():
                    traits.woken.add(row.run_id)
                case ProgressWrite() if row.tags is not None:
                    traits.tagged.add(row.run_id)
                case ChildEnd():
                    traits.wakes = True
        return traits

    def excludes(self, other: "Traits") -> bool:
        """Whether the two may not be in one statement."""
        return self._excludes(other) or other._excludes(self)

    def add(self, other: "Traits") -> None:
        """Take in the traits of more rows."""
        self.parks |= other.parks
        self.wakes |= other.wakes
        self.woken |= other.woken
        self.ended |= other.ended
        self.continued |= other.continued
        self.stepped |= other.stepped
        self.tagged |= other.tagged

    def _excludes(self, other: "Traits") -> bool:
        return (
            (self.parks and (other.wakes or bool(other.woken)))
            or not self.woken.isdisjoint(other.ended | other.tagged)
            or not self.continued.isdisjoint(other.stepped)
        )
