"""Fleet: builds with the runs that are bound to them, what is served, and what is paused."""

from collections.abc import Mapping
from typing import Any

from openworkflow.web.site import Place


async def load(place: Place, asked: Mapping[str, str]) -> dict[str, Any]:
    """See Load."""
    return {
        "builds": await place.backend.builds.list(),
        "served": (await place.backend.control.served()),
        "pauses": await place.backend.pauses.list(),
    }
