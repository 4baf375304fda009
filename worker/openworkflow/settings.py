"""The settings of a worker process, from its environment; every default is written here once."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT
from openworkflow.telemetry.logs import LogFormat

PREFIX = "OPENWORKFLOW_"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; the variable is OPENWORKFLOW_ and the field's name in capitals."""

    database_url: str | None = None
    """DATABASE_URL, without the prefix."""
    namespace: str = "default"
    schema: str = "public"
    listen_url: str | None = None
    """A direct connection for wake-ups, where DATABASE_URL leads through a pooler."""
    concurrency: int = 100
    """Runs in progress at once."""
    build_id: str = ""
    """Shown in openworkflow_build_info."""
    port: int = 9090
    """Of metrics and health; 0 for any free one."""
    log_format: LogFormat = "auto"
    """auto is human on a terminal, else json."""
    log_level: str = "INFO"
    lease_seconds: float = 30.0
    """How long a claim holds without a heartbeat."""
    drain_seconds: float = 30.0
    """How long running steps may go on after SIGTERM."""
    payload_limit_bytes: int = DEFAULT_PAYLOAD_LIMIT
    max_crashes: int = 5
    """Workers a run may kill, without recording a step in between, before it is failed."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment; empty variables count as unset.

        Raises ConfigurationError for a value out of range, and for an unknown OPENWORKFLOW_
        variable, naming the nearest known one.
        """
        env = os.environ if environ is None else environ
        known = {PREFIX + f.name.upper(): f for f in fields(cls) if f.name != "database_url"}
        for name in env:
            if name.startswith(PREFIX) and name not in known:
                raise ConfigurationError(_unknown(name, list(known)))
        values: dict[str, Any] = {
            field.name: _convert(name, field.name, env[name])
            for name, field in known.items()
            if env.get(name)
        }
        return cls(database_url=env.get("DATABASE_URL") or None, **values)


_RANGES: dict[str, tuple[float, float]] = {
    "concurrency": (1, 10_000),
    "port": (0, 65_535),
    "lease_seconds": (1, 86_400),
    "drain_seconds": (0, 86_400),
    "payload_limit_bytes": (1, 268_435_456),
    "max_crashes": (1, 1_000_000),
}
_CHOICES = {"log_format": get_args(LogFormat), "log_level": LOG_LEVELS}


def _convert(variable: str, name: str, text: str) -> Any:
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise ConfigurationError(f"{variable} must be one of {', '.join(_CHOICES[name])}")
        return text
    if name not in _RANGES:
        return text
    least, most = _RANGES[name]
    whole = not name.endswith("_seconds")
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{variable} must be {kind} from {least:g} to {most:g}")
    return value


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown environment variable {name}; {hint}"
