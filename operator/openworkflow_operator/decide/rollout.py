"""Which build takes new runs, and what becomes of the others: a pure function.

    Starting ──ready──> Verifying ──canary──> Ramping ──last step──> Current
        └───────────────────┴──── fails ────────┴──> Held             │ another build takes over
                                                            Draining <┘ ──no run left──> Drained

The state of a rollout is in the database (shares, promotions, holds) and in the cluster; nothing
is remembered, so an operator that is killed at any point is followed by one that goes on. What is
not known is never taken for drained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from openworkflow_contract.retirement import Leftover
from openworkflow_operator.api.spec import FailureLimit, Gate

#: So many builds of a namespace are looked at; those beyond are not known.
MOST_BUILDS: Final = 500

_CANARY_FAILED: Final = ("failed", "canceled")


class Phase(StrEnum):
    """Where a build stands; part of the API."""

    STARTING = "Starting"
    VERIFYING = "Verifying"
    RAMPING = "Ramping"
    CURRENT = "Current"
    HELD = "Held"
    DRAINING = "Draining"
    DRAINED = "Drained"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class BuildView:
    """A build in the database, with the unfinished runs that are pinned to it."""

    share: int
    """Percent of the new runs that it takes."""
    is_main: bool = False
    """Whether the build takes what a ramp leaves."""
    is_promoted: bool = False
    """Whether the build took new runs before, so that going back to it needs no proof."""
    is_held: bool = False
    seconds_since_promotion: float = 0.0
    due: int = 0
    oldest_due_age: float = 0.0
    waking: int = 0
    running: int = 0
    next_wake_seconds: float | None = None
    """Until the next of its sleeping runs is due."""
    canary: str | None = None
    """The status of its canary run."""
    canary_age: float = 0.0
    ended: int = 0
    """Runs that came since its promotion and that it ended; no more than are judged."""
    failed: int = 0
    """How many of these failed."""
    saturated: bool = False
    """More of its runs are due or running than were counted."""

    @property
    def runs_left(self) -> bool:
        """Whether any run can only be finished by this build."""
        return bool(self.due or self.running or self.next_wake_seconds is not None)


@dataclass(frozen=True, slots=True)
class BuildFleet:
    """The pods of a build."""

    pods: int = 0
    ready: int = 0
    trouble: str | None = None
    """Why its pods do not start."""
    is_stalled: bool = False
    """Whether the Deployment passed the progress deadline."""


@dataclass(frozen=True, slots=True)
class Promote:
    """Have a build take this share of the new runs."""

    build: str
    share: int = 100


@dataclass(frozen=True, slots=True)
class Hold:
    """Take the new runs away from a build that fails."""

    build: str


@dataclass(frozen=True, slots=True)
class StartCanary:
    """Start the canary run of a build."""

    build: str
    workflow: str


@dataclass(frozen=True, slots=True)
class StopCanary:
    """Do not wait for the canary run of a build that is not wanted any more."""

    build: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Forget a build; `leftover` says what becomes of its runs."""

    build: str
    leftover: Leftover = "refuse"


Action = Promote | Hold | StartCanary | StopCanary | Retire


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at all builds comes to."""

    phases: Mapping[str, tuple[Phase, str]]
    """With a word of explanation each."""
    actions: Sequence[Action] = ()
    """In the database, in this order."""
    awake: frozenset[str] = field(default_factory=frozenset)
    """Builds that need a pod although no run asks for one."""
    remove: frozenset[str] = field(default_factory=frozenset)
    """Builds whose Deployment goes."""


def decide_rollout(
    target: str,
    views: Mapping[str, BuildView] | None,
    fleets: Mapping[str, BuildFleet],
    gate: Gate,
) -> Verdict:
    """Return what to do; `views` is None while the database cannot be read."""
    if views is None:
        why = "the database cannot be read"
        return Verdict(dict.fromkeys({target, *fleets}, (Phase.UNKNOWN, why)))
    phase, why, action = _target(target, views, fleets.get(target, BuildFleet()), gate)
    phases = {target: (phase, why)}
    actions: list[Action] = [] if action is None else [action]
    remove = set()
    kept = _previous(target, views)
    for build in sorted({*views, *fleets} - {target}):
        is_known = build in views or len(views) < MOST_BUILDS
        fleet = fleets.get(build, BuildFleet())
        phases[build] = _other(views.get(build), fleet) if is_known else (Phase.UNKNOWN, _MANY)
        if build == kept and phases[build][0] is Phase.DRAINED:
            phases[build] = (Phase.DRAINED, "kept for a rollback")
        elif phases[build][0] is Phase.DRAINED:
            remove.add(build)
            if build in views:
                actions.append(Retire(build))
        elif phases[build][0] is Phase.DRAINING:
            if views[build].canary in ("pending", "running"):
                actions.append(StopCanary(build))
            if _is_overdue(views, gate):
                actions.append(Retire(build, gate.leftover))
    waits = phase in (Phase.STARTING, Phase.VERIFYING, Phase.RAMPING)
    # A held build that never became ready may still do so; one that failed its proof rests.
    tries = phase is Phase.HELD and not _has_failed(views.get(target), gate)
    awake = frozenset({target}) if waits or tries else frozenset()
    return Verdict(phases, actions, awake, frozenset(remove))


def _target(
    target: str, views: Mapping[str, BuildView], fleet: BuildFleet, gate: Gate
) -> tuple[Phase, str, Action | None]:
    view = views.get(target)
    if view is None:  # no worker of it has come up so far
        return (*_not_ready(fleet), None)
    if view.share == 100:
        return Phase.CURRENT, "", None
    if view.is_held:
        cause = _failures(view) if view.failed else "it failed"
        return Phase.HELD, f"{cause}; change the image, or promote it by hand", None
    if view.is_main and view.share:  # back to the build in use in the middle of a ramp
        return Phase.CURRENT, "", Promote(target)
    taken = any(other.share for build, other in views.items() if build != target)
    proves = not (view.share or view.is_promoted) and taken
    if proves and gate.canary is not None and view.canary in _CANARY_FAILED:
        # Before its pods: it rests, and without one it would be given one, fail again, and so on.
        return Phase.HELD, f"the canary {gate.canary} ended as {view.canary}", None
    if not fleet.ready:
        phase, why = _not_ready(fleet)
        failed = view.share > 0 and phase is Phase.HELD
        return phase, why, Hold(target) if failed else None
    if view.share:
        return _ramp(target, view, gate)
    return _prove(target, view, gate) if proves else (Phase.CURRENT, "", Promote(target))


def _not_ready(fleet: BuildFleet) -> tuple[Phase, str]:
    if fleet.trouble is not None:
        return Phase.HELD, f"its pods do not start: {fleet.trouble}"
    if fleet.is_stalled:
        return Phase.HELD, "no pod became ready within `rollout.progressDeadlineSeconds`"
    return Phase.STARTING, "waiting for a ready pod"


def _prove(target: str, view: BuildView, gate: Gate) -> tuple[Phase, str, Action | None]:
    first = gate.ramp[0].share if gate.ramp else 100
    if gate.canary is None or view.canary == "succeeded":
        phase = Phase.RAMPING if first < 100 else Phase.CURRENT
        return phase, "", Promote(target, first)
    if view.canary is None:
        why = f"starting the canary {gate.canary}"
        return Phase.VERIFYING, why, StartCanary(target, gate.canary)
    if view.canary_age > gate.canary_timeout_seconds:
        return Phase.HELD, f"the canary {gate.canary} did not end in time", None
    return Phase.VERIFYING, f"waiting for the canary {gate.canary}", None


def _ramp(target: str, view: BuildView, gate: Gate) -> tuple[Phase, str, Action | None]:
    """The next step once this one is proven; a ramp that was shortened is skipped."""
    limit = gate.failure_limit
    if limit and gate.ramp and view.share <= gate.ramp[0].share:
        if _is_exceeded(limit, view):
            return Phase.HELD, _failures(view), Hold(target)
        if view.ended < limit.first_runs:
            waits = f"{view.ended} of the first {limit.first_runs} ended, {view.failed} failed"
            return Phase.RAMPING, f"{view.share} % of the new runs: {waits}", None
    passed = [step.pause_seconds for step in gate.ramp if step.share <= view.share]
    pause = passed[-1] if passed else 0
    if view.seconds_since_promotion < pause:
        return Phase.RAMPING, f"{view.share} % of the new runs", None
    share = next((step.share for step in gate.ramp if step.share > view.share), 100)
    return Phase.RAMPING, f"{share} % of the new runs", Promote(target, share)


def _is_exceeded(limit: FailureLimit, view: BuildView) -> bool:
    """Whether it is certain already, however the remaining ones end."""
    return view.failed * 100 > limit.max_percent * limit.first_runs


def _failures(view: BuildView) -> str:
    """What they came to so far."""
    return f"{view.failed} of its first {view.ended} runs failed"


_MANY: Final = f"there are {MOST_BUILDS} builds or more"


def _other(view: BuildView | None, fleet: BuildFleet) -> tuple[Phase, str]:
    if view is None and fleet.pods:  # it may have registered since the database was read
        return Phase.UNKNOWN, "its pods end"
    if view is None:
        return Phase.DRAINED, "no worker of it ever started"
    if view.share:
        return Phase.CURRENT, f"{view.share} % of the new runs"
    if view.runs_left:
        return Phase.DRAINING, "finishes its runs"
    return Phase.DRAINED, "no run is left on it"


def _previous(target: str, views: Mapping[str, BuildView]) -> str | None:
    """The build that was in use before: going back to it takes no proof and no ramp.

    Before the one in use, that is, which the desired one need not be.
    """
    used = [
        (view.seconds_since_promotion, build)
        for build, view in views.items()
        if build != target and view.is_promoted and not view.is_held and not view.share
    ]
    return min(used)[1] if used else None


def _is_overdue(views: Mapping[str, BuildView], gate: Gate) -> bool:
    """Whether the rollout was completed so long ago that nobody waits for old runs any more."""
    if gate.leftover_seconds is None:
        return False
    since = [view.seconds_since_promotion for view in views.values() if view.share == 100]
    return bool(since) and since[0] > gate.leftover_seconds


def _has_failed(view: BuildView | None, gate: Gate) -> bool:
    if view is None:
        return False
    return view.is_held or (gate.canary is not None and view.canary in _CANARY_FAILED)
