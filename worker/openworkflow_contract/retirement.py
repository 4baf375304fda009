"""How the unfinished runs of a build that is retired end."""

import json
from typing import Literal

BATCH = 1000
"""How many runs a transaction moves or fails."""

Leftover = Literal["refuse", "move", "fail"]
"""What becomes of the unfinished runs of a build that is retired."""


def error_of(build_id: str) -> str:
    """The error of a run that failed because its build was retired, as JSON."""
    message = f"build {build_id!r} was retired before the run had finished"
    return json.dumps({"type": "BuildRetired", "message": message})
