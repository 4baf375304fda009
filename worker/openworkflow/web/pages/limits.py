"""Limits: how much of each is in use, and how many wait."""

from collections.abc import Mapping
from typing import Any

from openworkflow.web.site import Place


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    found = sorted(await place.ow.limits.list(), key=lambda each: (-each.waiting, each.name))
    return {"limits": found, "now": await place.backend.now()}
