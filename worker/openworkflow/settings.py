"""The settings of a worker process, from its environment; every default is written here once."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, get_args

from openworkflow.core.build_policy import BuildPolicy
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT, MOST_PAYLOAD_LIMIT
from openworkflow.core.step_attempt import DEFAULT_MAX_STEP_ATTEMPTS
from openworkflow.core.workflow_run import DEFAULT_RESIDENT_RUNS, DEFAULT_REST_SECONDS
from openworkflow.telemetry.logs import LogFormat
from openworkflow.telemetry.tracing import Traces

PREFIX = "OPENWORKFLOW_"
OtelSetup = Literal["on", "off"]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; the variable is OPENWORKFLOW_ and the field's name in capitals."""

    database_url: str | None = field(default=None, repr=False)
    """DATABASE_URL, without the prefix; not shown, it may hold a password."""
    namespace: str = "default"
    """Which runs are seen: those of other namespaces in the same database are not."""
    schema: str = "public"
    """The schema of the database that holds the tables."""
    listen_url: str | None = field(default=None, repr=False)
    """A direct connection for wake-ups, where DATABASE_URL leads through a pooler."""
    concurrency: int = 100
    """Runs in progress at once."""
    processes: int = 1
    """Worker processes of `openworkflow worker`, which share those slots: one for each core."""
    build_id: str = ""
    """The build of the user's code that this is, such as a commit or an image's digest."""
    build_policy: BuildPolicy = "moving"
    """pinned: runs are finished by the build that began them; moving: by any."""
    port: int | None = None
    """The port of metrics and health; 0 for any free one. None is 9090, or any where that is taken
    by another worker of the machine."""
    log_format: LogFormat = "auto"
    """human or json; auto is human on a terminal, else json."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    lease_seconds: float = 30.0
    """How long a claim holds without a heartbeat."""
    drain_seconds: float = 30.0
    """How long running steps may go on after SIGTERM."""
    rest_seconds: float = DEFAULT_REST_SECONDS
    """Waits up to so long are spent in memory, without a slot; longer ones are parked."""
    resident_runs: int = DEFAULT_RESIDENT_RUNS
    """Parked runs that stay in memory, so that they need no replay; 0 for none."""
    payload_limit_bytes: int = DEFAULT_PAYLOAD_LIMIT
    """The most bytes of one input, output or step result, as JSON text."""
    codec: str | None = None
    """module:name of the codecs of stored values, of the worker and of commands."""
    max_crashes: int = 5
    """Workers a run may kill, without recording a step in between, before it is failed."""
    max_step_attempts: int = DEFAULT_MAX_STEP_ATTEMPTS
    """Attempts of steps that a run may make before it is failed; 0 for no limit."""
    dashboard_tokens: str | None = field(default=None, repr=False)
    """Who may log in to the dashboard: role:token or name:role:token, apart by commas."""
    dashboard_openid_secret: str | None = field(default=None, repr=False)
    """The secret by which an OpenID provider knows the dashboard."""
    otel: OtelSetup = "off"
    """on: `openworkflow worker` sets up OpenTelemetry by its own OTEL_ variables."""
    traces: Traces = "links"
    """links: each execution is a trace, linked to the start of its run; parent: a part of that
    trace; off: none."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment; empty variables count as unset.

        Raises ConfigurationError for a value out of range, and for an unknown OPENWORKFLOW_
        variable, naming the nearest known one.
        """
        env = _without_service_links(os.environ if environ is None else environ)
        known = {PREFIX + f.name.upper(): f.name for f in fields(cls) if f.name != "database_url"}
        for variable in env:
            foreign = variable.startswith(_OPERATORS) or not variable.startswith(PREFIX)
            if not foreign and variable not in known:
                raise ConfigurationError(_unknown(variable, list(known)))
        values: dict[str, Any] = {
            name: _convert(variable, name, text)
            for variable, name in known.items()
            if (text := env.get(variable, "").strip())
        }
        return cls(database_url=env.get("DATABASE_URL", "").strip() or None, **values)

    def worker_options(self) -> dict[str, Any]:
        """The options of Worker that the environment decides alone."""
        return {
            "lease": timedelta(seconds=self.lease_seconds),
            "drain": timedelta(seconds=self.drain_seconds),
            "rest": timedelta(seconds=self.rest_seconds),
            "resident": self.resident_runs,
            "payload_limit": self.payload_limit_bytes,
            "max_crashes": self.max_crashes,
            "max_step_attempts": self.max_step_attempts,
            "build_id": self.build_id,
            "build_policy": self.build_policy,
            "traces": self.traces,
        }


_OPERATORS = PREFIX + "OPERATOR_"
"""Settings of the operator, in whose pod the command runs too."""
_SERVICE_HOST = "_SERVICE_HOST"
_SERVICE_LINK = re.compile(
    r"_SERVICE_(?:HOST|PORT)|_SERVICE_PORT_.+|_PORT|_PORT_\d+_(?:TCP|UDP|SCTP).*"
)
_RANGES: dict[str, tuple[float, float]] = {
    "concurrency": (1, 10_000),
    "processes": (1, 64),
    "port": (0, 65_535),
    "lease_seconds": (1, 86_400),
    "drain_seconds": (0, 86_400),
    "rest_seconds": (0, 86_400),
    "resident_runs": (0, 1_000_000),
    "payload_limit_bytes": (1, MOST_PAYLOAD_LIMIT),
    "max_crashes": (1, 1_000_000),
    "max_step_attempts": (0, 1_000_000),
}
_CHOICES = {
    "log_format": get_args(LogFormat),
    "log_level": LOG_LEVELS,
    "build_policy": get_args(BuildPolicy),
    "otel": get_args(OtelSetup),
    "traces": get_args(Traces),
}


def _without_service_links(environ: Mapping[str, str]) -> dict[str, str]:
    """Drop what Kubernetes adds to each pod of a namespace with a Service named openworkflow[-...].

    One of those, OPENWORKFLOW_PORT=tcp://10.0.0.1:9090, looks like a setting of ours.
    """
    services = [
        name.removesuffix(_SERVICE_HOST)
        for name in environ
        if name.startswith(PREFIX.rstrip("_")) and name.endswith(_SERVICE_HOST)
    ]
    ours = PREFIX + "PORT"
    return {
        name: value
        for name, value in environ.items()
        if (name == ours and "://" not in value)
        or not any(
            name.startswith(service) and _SERVICE_LINK.fullmatch(name.removeprefix(service))
            for service in services
        )
    }


def _convert(variable: str, name: str, text: str) -> Any:
    if name in _CHOICES:
        for choice in _CHOICES[name]:
            if text.lower() == choice.lower():
                return choice
        raise ConfigurationError(
            f"{variable} must be one of {', '.join(_CHOICES[name])}, not {text!r}"
        )
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
        raise ConfigurationError(
            f"{variable} must be {kind} from {least:,.0f} to {most:,.0f}, not {text!r}"
        )
    return value


def _unknown(variable: str, known: list[str]) -> str:
    names = {name.removeprefix(PREFIX): name for name in (*known, "DATABASE_URL")}
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1)
    hint = f"did you mean {names[near[0]]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown environment variable {variable}; {hint}"
