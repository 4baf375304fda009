"""Schedules: in words, when they fire next, and what became of the last."""

from collections.abc import Mapping
from typing import Any

from openworkflow.web.site import Place

NEXT = 5


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    schedules = sorted(await place.ow.schedules.list(), key=lambda each: each.name)
    return {
        "schedules": schedules,
        "upcoming": {each.name: each.upcoming(NEXT) for each in schedules},
    }
