"""Statements that a tenant's role may not send, or whose tables are not there: left out a while.

Each try is an error in the tenant's log; a grant or a migration comes while the connection stands.
"""

from __future__ import annotations

import time
from typing import Final

AGAIN_SECONDS: Final = 600.0


class Refused:
    """Names of what is not asked or told for now."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def __contains__(self, name: object) -> bool:
        since = self._since.get(str(name))
        return since is not None and time.monotonic() - since < AGAIN_SECONDS

    def add(self, name: str) -> None:
        """Leave this one out from now on."""
        self._since[name] = time.monotonic()
