"""Fleet: workers as the operator sees them, builds with the runs bound to them, what is served."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from openworkflow.backend.board import ToldFleet
from openworkflow.web.site import Place

FORGOTTEN = timedelta(minutes=12)
"""An operator tells at least every five minutes, or as soon as it reaches the database again."""
COUNTED = ("ready", "desired", "least", "most")
"""Numbers of a fleet that the page has."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the operator says of one side of a fleet."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is to be seen of a fleet."""

    resource: str
    reported_at: datetime
    is_forgotten: bool
    """No operator keeps this any more."""
    numbers: dict[str, int]
    conditions: list[Condition]
    phases: dict[str, str]
    """Phase of each build."""

    @property
    def troubles(self) -> list[str]:
        """What is not as it should be, in the operator's words."""
        return [
            each.message
            for each in self.conditions
            if (each.type == "Ready" and each.status != "True")
            or (each.type == "ScalingLimited" and each.status == "True")
        ]


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    told = await place.backend.board.fleet()
    return {
        "fleet": None if told is None else fleet_of(told),
        "builds": await place.backend.builds.list(),
        "served": (await place.backend.control.served()),
        "pauses": await place.backend.pauses.list(),
    }


def fleet_of(told: ToldFleet) -> Fleet:
    """What an operator of any version has told: whatever is not as expected is left out."""
    status = told.status if isinstance(told.status, dict) else {}
    return Fleet(
        resource=told.resource,
        reported_at=told.reported_at,
        is_forgotten=told.age > FORGOTTEN,
        numbers={name: status[name] for name in COUNTED if type(status.get(name)) is int},
        conditions=[_condition(each) for each in _objects(status.get("conditions"))],
        phases={
            str(each.get("id")): str(each.get("phase", ""))
            for each in _objects(status.get("builds"))
        },
    )


def _objects(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _condition(given: Mapping[str, Any]) -> Condition:
    words = {name: str(given.get(name, "")) for name in ("type", "status", "reason", "message")}
    return Condition(**words, since=_moment(given.get("since")))


def _moment(given: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
