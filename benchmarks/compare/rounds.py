"""In what order contenders take turns: A B C A B C, so that a slow minute meets all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.compare.peers import Contender
from benchmarks.workloads import Workload

PARTS = ("W1", "W2", "W3", "W4", "W5")
FORMS = {
    "W3": ("single", "concurrent", "batch"),
    "W5": tuple(f"{steps} {load}" for load in ("low", "full") for steps in (1, 3, 9)),
}
"""Forms of a part that has several; those of W5 are the steps of a run, and the load."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender, once. `form` is of W3 and W5 only."""

    number: int
    part: str
    contender: Contender
    form: str = ""

    @property
    def prefix(self) -> str:
        """What the names of its figures begin with."""
        return " ".join(word for word in (self.part, self.contender.name, self.form) if word)


def turns(rounds: int, parts: Sequence[str], contenders: Iterable[Contender]) -> Iterator[Turn]:
    """All turns in their order: rounds, in each the parts, in each the contenders."""
    taking_part = list(contenders)
    for number in range(1, rounds + 1):
        for part in parts:
            for form in FORMS.get(part, ("",)):
                for contender in taking_part:
                    if _has(contender, part, form):
                        yield Turn(number, part, contender, form)


def _has(contender: Contender, part: str, form: str) -> bool:
    if part == "W3":
        return form in contender.forms
    if part == "W5":
        return Workload.TEN_STEPS in contender.workloads
    return part == "W4" or Workload(part) in contender.workloads
