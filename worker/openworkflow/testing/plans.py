"""What a test has planned for steps: failures, crashes, stand-ins; and what it has seen of them.

Pure but for the calls themselves: which plan a call meets is decided here, and nowhere else.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown
from openworkflow.core.workflow import DurableFunction, Workflow

StepName = str | DurableFunction[..., Any]
"""A step: its name, or the function that is decorated with @step."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step's function, real or not, as the worker made it."""

    step: str
    """Key of the step: the name, with an ordinal (`name:1`) where the run had it before."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run_id: UUID
    attempt: int
    """Attempt of the step, from 1; one that a crash has cut short is made again."""

    def __repr__(self) -> str:
        given = [f"{shown(each, 60)}" for each in self.args]
        given += [f"{name}={shown(value, 60)}" for name, value in self.kwargs.items()]
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"<call of {self.step}({', '.join(given)}){again}>"


class Calls(list[Call]):
    """Calls of a step. Where there is none of its name, an assertion that fails says so."""

    hint = ""

    def __repr__(self) -> str:
        return f"[] (no step is called so; {self.hint})" if self.hint else super().__repr__()


@dataclass(slots=True)
class Plan:
    """What is to happen at the next `left` calls of a step; None is all of them."""

    what: Literal["fail", "stub", "crash_in", "crash_after"]
    step: str
    left: int | None = None
    error: BaseException | None = None
    stand_in: Any = None
    used: bool = field(default=False, init=False)

    def use(self) -> None:
        """Note that the plan has met a call."""
        self.used = True
        if self.left is not None:
            self.left -= 1


class Plans:
    """All plans of one environment, and the calls that were made in it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.seen: dict[str, None] = {}
        """The steps that runs have come to, whatever their kind."""
        self._plans: list[Plan] = []

    def add(self, plan: Plan) -> None:
        """Plans are met in the order in which they were made; the newest stub counts."""
        if plan.what == "stub":
            self._plans = [p for p in self._plans if (p.what, p.step) != ("stub", plan.step)]
        self._plans.append(plan)

    def take(self, step: str, *what: str) -> Plan | None:
        """The first plan of these kinds for this call of a step, which is used by that."""
        for plan in self._plans:
            if plan.what in what and plan.left != 0 and matches(plan.step, step):
                plan.use()
                return plan
        return None

    def expects(self, step: str, what: str) -> bool:
        """Whether this is planned for the next call of a step."""
        return any(
            plan.what == what and plan.left != 0 and matches(plan.step, step)
            for plan in self._plans
        )

    def of(self, step: StepName) -> list[Call]:
        """The calls of a step, in their order."""
        name = step_name(step)
        return calls_of(name, self.calls, self.seen)

    def unmet(self) -> str | None:
        """What is left of failures and crashes that were planned, as a text; None if nothing is.

        A stub that was never asked for is no mistake, unless its name is nearly one that was.
        """
        left = [plan for plan in self._plans if self._is_unmet(plan)]
        if not left:
            return None
        return "; ".join(self._told(plan) for plan in left)

    def _is_unmet(self, plan: Plan) -> bool:
        if plan.what == "stub":
            known = plan.used or any(matches(plan.step, step) for step in self.seen)
            return not known and nearest(plan.step, self.seen) is not None
        return bool(plan.left)

    def _told(self, plan: Plan) -> str:
        text = f"env.{plan.what}({plan.step!r}, ...) met no "
        if any(matches(plan.step, step) for step in self.seen):
            which, hint = "call", ""
            if plan.what.startswith("crash"):
                which, hint = (
                    "call that returned",
                    "; a crash waits for such a one, none that raises",
                )
            calls = len(self.of(plan.step))
            return f"{text}{which} {plan.left} more times; the step has {calls} calls{hint}"
        return f"{text}step; {strange(plan.step, self.seen)}"


def calls_of(name: str, calls: Iterable[Call], seen: Iterable[str]) -> Calls:
    """Calls of a step in a test that has `seen` these steps."""
    found = Calls(call for call in calls if matches(name, call.step))
    if not found and not any(matches(name, each) for each in seen):
        found.hint = strange(name, seen)
    return found


def strange(name: str, seen: Iterable[str]) -> str:
    """What is to be said of a name that no step has had so far."""
    known = list(seen)
    if near := nearest(name, known):
        return f"did you mean {near!r}?"
    return f"the runs of this test came to these: {', '.join(known) or 'none':.300}"


def step_name(step: StepName) -> str:
    """Raises ConfigurationError for what names no step."""
    if isinstance(step, DurableFunction):
        return step.name
    if type(step) is str and step:
        return step
    if isinstance(step, Workflow):
        raise ConfigurationError(
            f"a workflow is no step: serve another one of the same name, env.serve(fake), where "
            f"fake is decorated with @workflow(name={step.name!r})"
        )
    raise ConfigurationError(
        f'a step is given by its name, such as "charge", not {shown(step)}; the name is the first '
        "argument of step.run, or the function's with dashes where that is decorated with @step"
    )


def matches(planned: str, step: str) -> bool:
    """Whether a call has this name: it itself, a repetition `name:1`, or an item `name[key]`."""
    if planned == step:
        return True
    head, _, ordinal = step.rpartition(":")
    if ordinal.isdecimal() and head == planned:
        return True
    return step.endswith("]") and step.partition("[")[0] == planned


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one."""
    found = difflib.get_close_matches(name, list(known), 1)
    return found[0] if found else None


def play(stand_in: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a stub answers: its value, or what its function returns for these arguments."""
    if isinstance(stand_in, BaseException):
        raise stand_in
    return stand_in(*args, **kwargs) if callable(stand_in) else stand_in
