"""The settings of the operator, from its environment; each default is written here once."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

PREFIX: Final = "OPENWORKFLOW_OPERATOR_"
_OWN_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


class InvalidSetting(Exception):
    """A variable cannot be used; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says: OPENWORKFLOW_OPERATOR_ and the field's name in capitals."""

    namespaces: tuple[str, ...] = ()
    """Kubernetes namespaces to watch, separated by commas; none means all of them."""
    namespace: str = "default"
    """Where the Lease is; in a pod, the pod's own namespace."""
    identity: str = ""
    """The name of this candidate for the Lease; the host's name by default."""
    lease_seconds: float = 15.0
    """After how long a dead operator is replaced."""
    port: int = 8080
    """Port for metrics and health; 0 picks a free one."""
    workers: int = 8
    """Resources that are visited at once."""
    resync_seconds: float = 60.0
    """How often everything is visited, whether or not anything was heard of it."""
    max_replicas: int = 1000
    """The most worker pods that one resource may have, whatever it says."""
    ca_file: str = ""
    """CA certificates for sslmode=verify-ca and verify-full; the system's if empty."""
    allow_loopback: bool = False
    """Whether URLs may lead to the operator's own machine; for development only."""
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the environment; empty variables count as unset. Raises InvalidSetting."""
        env = os.environ if environ is None else environ
        known = {PREFIX + each.name.upper(): each.name for each in fields(cls)}
        unknown = sorted(name for name in env if name.startswith(PREFIX) and name not in known)
        # Kubernetes adds such variables for a Service of the same name.
        unknown = [name for name in unknown if not re.search(r"_(SERVICE|PORT)_", name)]
        if unknown:
            raise InvalidSetting(f"{unknown[0]} is not one of {', '.join(known)}")
        values = {
            name: _convert(variable, name, env[variable])
            for variable, name in known.items()
            if env.get(variable)
        }
        values.setdefault("identity", socket.gethostname())
        if _OWN_NAMESPACE_FILE.exists():
            values.setdefault("namespace", _OWN_NAMESPACE_FILE.read_text().strip())
        return cls(**values)


_RANGES: Final[dict[str, tuple[float, float]]] = {
    "lease_seconds": (2, 3600),
    "port": (0, 65_535),
    "workers": (1, 256),
    "resync_seconds": (1, 3600),
    "max_replicas": (1, 1000),
}


def _convert(variable: str, name: str, text: str) -> Any:
    match name:
        case "namespaces":
            names = tuple(part.strip() for part in text.split(",") if part.strip())
            if not all(_NAMESPACE.fullmatch(each) for each in names):
                raise InvalidSetting(f"{variable} must be names of namespaces, separated by commas")
            return names
        case "ca_file":
            if not Path(text).is_file():
                raise InvalidSetting(f"{variable} must be a file with CA certificates")
            return text
        case "allow_loopback":
            if text not in ("true", "false"):
                raise InvalidSetting(f"{variable} must be true or false")
            return text == "true"
        case "log_level":
            if text not in _LOG_LEVELS:
                raise InvalidSetting(f"{variable} must be one of {', '.join(_LOG_LEVELS)}")
            return text
        case _ if name in _RANGES:
            return _number(variable, text, *_RANGES[name], whole=not name.endswith("_seconds"))
        case _:
            return text


def _number(variable: str, text: str, least: float, most: float, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise InvalidSetting(f"{variable} must be {kind} from {least:g} to {most:g}")
    return value
