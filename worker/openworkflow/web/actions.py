"""What can be done from the dashboard: each is a POST, asks for a role, and is in the audit log."""

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import HTTPConnection

from openworkflow.core.errors import BackendError, ConfigurationError
from openworkflow.core.json_values import parsed_json
from openworkflow.web.auth import Role
from openworkflow.web.site import Place

AUDIT = logging.getLogger("openworkflow.dashboard.audit")
"""A line for each action: who, what, of what, with which outcome."""
BULK_SECONDS = 20.0
"""A bulk action pauses after so long, and is gone on with by another click."""
BULK = {
    "retry": Role.OPERATOR,
    "cancel": Role.OPERATOR,
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "delete": Role.ADMIN,
}

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an action."""

    to: str
    """The page to go to, under the namespace's."""
    note: str
    """What is told there."""


@dataclass(frozen=True, slots=True)
class Acted:
    """How far a bulk action has come."""

    done: int
    passed: int
    """Runs that were left as they were."""
    cursor: str | None
    """Where to go on; None at the end, or where it had not come anywhere."""
    trouble: str | None = None
    """What the database refused; more may have been done than is known."""


Act = Callable[[Place, Mapping[str, Any], Form], Awaitable[Done]]


@dataclass(frozen=True, slots=True)
class Action:
    """An action: where it is sent to, and who may."""

    path: str
    role: Role
    act: Act


async def retry(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Start a failed or canceled run again."""
    step = form.get("from_step") or None
    await place.ow.retry(of["run_id"], from_step=step)
    return Done(_run(of), f"it is retried from {step!r}" if step else "it is retried")


async def cancel(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Cancel a run, after its undo."""
    run = await place.ow.cancel(of["run_id"])
    return Done(
        _run(of), "it is canceled" if run.status.finished else "its steps are undone, then it ends"
    )


async def kill(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Cancel a run at once."""
    await place.ow.cancel(of["run_id"], force=True)
    return Done(_run(of), "it is canceled, and nothing is undone")


async def pause(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Hold a run back."""
    await place.ow.pause(
        of["run_id"], by=place.caller.name[:200], reason=form.get("reason") or "from the dashboard"
    )
    return Done(_run(of), "it is paused")


async def resume(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Let a paused run go on."""
    await place.ow.resume(of["run_id"])
    return Done(_run(of), "it goes on")


async def signal(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Send a run a signal."""
    name = form.get("name", "")
    await place.ow.signal(of["run_id"], name, parsed_json("the value", form.get("value") or "null"))
    return Done(_run(of), f"signal {name!r} is sent")


async def fork(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Start a new run with a part of another's history."""
    options: dict[str, Any] = {"from_step": form.get("from_step") or None}
    if (text := form.get("input", "").strip()) and form.get("was", "").strip() != text:
        options["input"] = parsed_json("the input", text)
    made = await place.ow.fork(of["run_id"], **options)
    return Done(f"/runs/{made.id}", f"this is the fork of {of['run_id']}")


async def pause_schedule(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Pause a schedule."""
    await place.ow.schedules.pause(of["name"], f"from the dashboard, by {place.caller.name[:100]}")
    return Done("/schedules", f"schedule {of['name']!r} is paused")


async def resume_schedule(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Resume a schedule."""
    await place.ow.schedules.resume(of["name"])
    return Done("/schedules", f"schedule {of['name']!r} goes on")


async def trigger_schedule(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Start a run of a schedule now."""
    made = await place.ow.schedules.trigger(of["name"])
    return Done(f"/runs/{made.id}", f"this is a run of schedule {of['name']!r}")


async def pause_limit(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Let nothing begin under a limit for ten minutes."""
    known = await place.ow.limits.pause(of["name"], "10m")
    return Done("/limits", _known("limit", of["name"], known, "is paused for ten minutes"))


async def resume_limit(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """End the pause of a limit."""
    known = await place.ow.limits.resume(of["name"])
    return Done("/limits", _known("limit", of["name"], known, "is open again"))


async def promote(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Have a build take all new runs."""
    await place.backend.builds.promote(of["name"])
    return Done("/fleet", f"build {of['name']!r} takes the new runs")


async def hold(place: Place, of: Mapping[str, Any], form: Form) -> Done:
    """Take the new runs away from a build."""
    await place.backend.builds.hold(of["name"])
    return Done("/fleet", f"build {of['name']!r} is held")


ACTIONS = (
    Action("/runs/{run_id:uuid}/retry", Role.OPERATOR, retry),
    Action("/runs/{run_id:uuid}/cancel", Role.OPERATOR, cancel),
    Action("/runs/{run_id:uuid}/kill", Role.ADMIN, kill),
    Action("/runs/{run_id:uuid}/pause", Role.OPERATOR, pause),
    Action("/runs/{run_id:uuid}/resume", Role.OPERATOR, resume),
    Action("/runs/{run_id:uuid}/signal", Role.OPERATOR, signal),
    Action("/runs/{run_id:uuid}/fork", Role.OPERATOR, fork),
    Action("/schedules/{name}/pause", Role.OPERATOR, pause_schedule),
    Action("/schedules/{name}/resume", Role.OPERATOR, resume_schedule),
    Action("/schedules/{name}/trigger", Role.OPERATOR, trigger_schedule),
    Action("/limits/{name}/pause", Role.ADMIN, pause_limit),
    Action("/limits/{name}/resume", Role.ADMIN, resume_limit),
    Action("/builds/{name}/promote", Role.ADMIN, promote),
    Action("/builds/{name}/hold", Role.ADMIN, hold),
)


async def perform(place: Place, act: Act, of: Mapping[str, Any], form: Form) -> Done:
    """Act, and record that, whatever comes of it. Raises what it raises."""
    about = {name: of[name] for name in ("run_id", "name") if name in of}
    try:
        done = await act(place, of, form)
    except BaseException as error:
        record(place, act.__name__, type(error).__name__, **about)
        raise
    record(place, act.__name__, "done", **about)
    return done


async def bulk(place: Place, action: str, where: str, cursor: str | None) -> Acted:
    """Act on the runs of a filter for a while.

    It is recorded, with how many are known to be done where it fails.
    """
    acted, until, outcome = Acted(0, 0, cursor), time.monotonic() + BULK_SECONDS, "done"
    by = place.caller.name[:200]
    told: Any = place.ow.bulk(
        action,  # type: ignore[arg-type]
        where,
        cursor=cursor,
        by=by,
        reason="from the dashboard" if action == "pause" else None,
    )
    try:
        async for step in told:
            acted = Acted(step.done, step.passed, step.cursor)
            if time.monotonic() > until:
                return acted
    except BaseException as error:
        outcome = type(error).__name__
        if not isinstance(error, BackendError):
            raise
        return replace(acted, trouble=str(error))
    finally:
        record(place, f"bulk {action}", outcome, where=where, count=acted.done)
    return replace(acted, cursor=None)


def record(place: Place, what: str, outcome: str, **about: object) -> None:
    """Write a line into the audit log; what is sent along is not in it."""
    AUDIT.info(
        "%s",
        json.dumps(
            {
                "who": place.caller.name,
                "role": place.role.name.lower(),
                "namespace": place.namespace,
                "what": what,
                **{name: str(value) for name, value in about.items()},
                "outcome": outcome,
            }
        ),
    )


def record_refusal(who: str | None, request: HTTPConnection, what: str, why: str) -> None:
    """Write into the audit log what somebody was not let do, without a token that was typed."""
    address = None if request.client is None else request.client.host
    said = {"who": who, "from": address, "what": what[:300], "outcome": "refused", "why": why[:300]}
    AUDIT.info("%s", json.dumps(said))


def _run(of: Mapping[str, Any]) -> str:
    return f"/runs/{of['run_id']}"


def _known(what: str, name: str, known: bool, told: str) -> str:
    if not known:
        raise ConfigurationError(f"there is no {what} {name!r}")
    return f"{what} {name!r} {told}"
