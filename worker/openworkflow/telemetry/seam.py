"""The seam at which executions are observed: what happens to them, as calls of an `Observer`.

Where nobody observes there is no observer at all, and a run costs no call more. Counts and log
lines stand at the same places: `Reports` for the beginning and the end of an execution,
`Execution.waits` for waits, the call of a step for its attempts.
"""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun

Claim = tuple[UUID, int]
"""A run and the number of its claim."""


class Observer(Protocol):
    """Is told of the executions of one worker; raises nothing, waits for nothing.

    All but `run_is_gone` is called in the context of the execution that it is about.
    """

    def run_begins(self, run: ClaimedRun) -> None:
        """An execution begins, or goes on in another task."""

    def run_ends(self, run: ClaimedRun, outcome: str, failure: Failure | None) -> None:
        """An execution came to `outcome`, as the metrics call it, and that is recorded."""

    def run_is_gone(self, claim: Claim) -> None:
        """Nothing more is heard of an execution, whether it has ended or not."""

    def step_begins(self, run: ClaimedRun, call: UUID, key: str, kind: str, attempt: int) -> None:
        """The function of a step is about to be called, in a context of its own: this one."""

    def step_ends(self, call: UUID, error: BaseException | None) -> None:
        """The attempt has ended; with a CancelledError or Suspended, it was cut short."""

    def wait_begins(
        self, run: ClaimedRun, kind: str, key: str | None, until: datetime | None
    ) -> None:
        """The run waits; `kind` is one of WAIT_KINDS, `key` the step that does."""

    def child_begins(
        self, run: ClaimedRun, child: UUID | None, name: str, version: str | None
    ) -> str | None:
        """A step starts a child, or many if None; answers what `context` they are stored with."""
