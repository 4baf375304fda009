"""Connection strings as libpq takes them: `postgresql://user:password@host:port/database?options`.

A `Dsn` never shows its password, neither in its repr nor in the errors made from it. A password
with special characters that were not percent-encoded splits the URL in the wrong places, so an
error quotes no part of it that may be a piece of one.
"""

import difflib
import getpass
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from openworkflow.core.asked import check_is
from openworkflow.core.errors import ConfigurationError
from openworkflow_contract.schemes import SCHEME

DEFAULT_PORT = 5432
DEFAULT_POOL_SIZE = 10
DEFAULT_CONNECT_TIMEOUT = 10.0
"""Seconds."""

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSION_ATTRS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl")
KNOWN_PARAMETERS = (
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "options",
    "password",
    "pool_size",
    "port",
    *TLS_FILES,
    "sslmode",
    "target_session_attrs",
    "user",
)
_ESCAPE = "percent-encode special characters in the user and password (@ is %40, / is %2F)"
_SHAPE = re.compile(SCHEME + r"://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?\Z")
_HOST = re.compile(r"(\[[^\]]+\]|[^:\[\]]*)(?::(\d*))?\Z")


@dataclass(frozen=True, slots=True)
class Dsn:
    """A parsed connection string."""

    hosts: tuple[tuple[str, int], ...]
    """Tried in turn; a host that begins with `/` is the folder of a Unix socket."""
    database: str
    user: str
    password: str | None = field(repr=False)
    sslmode: str | None = None
    tls: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The TLS files that were named."""
    pool_size: int = DEFAULT_POOL_SIZE
    application_name: str | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    """Seconds."""
    options: str | None = None
    target_session_attrs: str | None = None

    def __str__(self) -> str:
        """What people may see: host, port and database."""
        return f"{self.address}/{self.database}"

    @property
    def address(self) -> str:
        """`host:port`, or the socket's path."""
        return ",".join(_address(host, port) for host, port in self.hosts)

    def arguments(self) -> dict[str, Any]:
        """The arguments for `asyncpg.connect`."""
        tls = dict(self.tls)
        if self.sslmode is not None:
            tls["sslmode"] = self.sslmode
        arguments: dict[str, Any] = {
            "dsn": f"postgresql://?{urlencode(tls)}" if tls else None,
            "host": [host for host, _ in self.hosts],
            "port": [port for _, port in self.hosts],
            "database": self.database,
            "user": self.user,
            "timeout": self.connect_timeout,
        }
        if self.password is not None:
            arguments["password"] = self.password
        if self.target_session_attrs is not None:
            arguments["target_session_attrs"] = self.target_session_attrs
        return arguments


def parse(url: str | None) -> Dsn:
    """Read a connection string; ConfigurationError says what is wrong with it."""
    if url is not None:
        check_is("a database URL", url, str, "text, such as postgresql://user:password@host/name")
    if url is None or not url.strip():
        raise ConfigurationError(
            "there is no database URL; "
            "set DATABASE_URL=postgresql://user:password@host:5432/database"
        )
    match = _SHAPE.match(url.strip())
    if match is None or _is_split_in_a_password(*match.groups(default="")):
        raise ConfigurationError(
            "the database URL does not have the form "
            f"postgresql://user:password@host:port/database?options; {_ESCAPE}"
        )
    authority, path, query = (part or "" for part in match.groups())
    parameters = _parameters(query)
    credentials, _, places = authority.rpartition("@")
    user, colon, password = credentials.partition(":")
    user = parameters.get("user") or unquote(user) or _default_user()
    database = parameters.get("dbname") or unquote(path) or os.environ.get("PGDATABASE") or user
    return Dsn(
        hosts=_hosts(places, parameters),
        database=database,
        user=user,
        password=parameters.get("password", unquote(password) if colon else None),
        sslmode=_choice("sslmode", parameters, SSL_MODES),
        tls=tuple((name, parameters[name]) for name in TLS_FILES if name in parameters),
        pool_size=int(_number("pool_size", parameters, DEFAULT_POOL_SIZE, whole=True)),
        application_name=parameters.get("application_name"),
        connect_timeout=_number("connect_timeout", parameters, DEFAULT_CONNECT_TIMEOUT),
        options=parameters.get("options"),
        target_session_attrs=_choice("target_session_attrs", parameters, SESSION_ATTRS),
    )


def _is_split_in_a_password(authority: str, path: str, query: str) -> bool:
    """Whether a `/` or `?` of a password ended the authority, so that its `@` came too late."""
    return "@" in path or ("@" in query and "@" not in authority)


def _parameters(query: str) -> dict[str, str]:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for name in parameters:
        if name not in KNOWN_PARAMETERS:
            near = difflib.get_close_matches(name, KNOWN_PARAMETERS, 1)
            hint = f" {name!r}, did you mean {near[0]!r}?" if near else f"; {_ESCAPE};"
            raise ConfigurationError(
                f"the database URL has an unknown parameter{hint} "
                f"known are {', '.join(KNOWN_PARAMETERS)}"
            )
    return parameters


def _hosts(places: str, parameters: dict[str, str]) -> tuple[tuple[str, int], ...]:
    if "host" in parameters:
        hosts = parameters["host"].split(",")
        ports = parameters.get("port", "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        if len(ports) != len(hosts):
            raise ConfigurationError("the database URL names more ports than hosts, or fewer")
        return tuple((host, _port(port)) for host, port in zip(hosts, ports, strict=True))
    found = []
    for place in places.split(","):
        match = _HOST.match(place)
        if match is None:
            raise ConfigurationError(
                f"the database URL's host or port cannot be read (a port is a number); {_ESCAPE}"
            )
        host, port = unquote(match[1]).strip("[]"), match[2] or parameters.get("port", "")
        found.append((host or _default_host(), _port(port)))
    return tuple(found)


def _port(text: str) -> int:
    text = text or os.environ.get("PGPORT", "") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigurationError(
            f"the database URL's port is not a number from 1 to 65535; {_ESCAPE}"
        )
    return int(text)


def _choice(name: str, parameters: dict[str, str], allowed: tuple[str, ...]) -> str | None:
    value = parameters.get(name)
    if value is not None and value not in allowed:
        raise ConfigurationError(
            f"the database URL's {name} is {_shown(value)}; allowed are {', '.join(allowed)}"
        )
    return value


def _number(name: str, parameters: dict[str, str], default: float, *, whole: bool = False) -> float:
    text = parameters.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,6}" if whole else r"\d{1,6}(\.\d+)?", text) or float(text) == 0:
        kind = "a whole number above 0" if whole else "a number of seconds above 0"
        raise ConfigurationError(f"the database URL's {name} must be {kind}, not {_shown(text)}")
    return float(text)


def _shown(value: str) -> str:
    return repr(value) if re.fullmatch(r"[\w.+-]{0,20}", value) else "something else"


def _address(host: str, port: int) -> str:
    if host.startswith("/"):
        return f"{host}/.s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _default_user() -> str:
    return os.environ.get("PGUSER") or getpass.getuser()


def _default_host() -> str:
    return os.environ.get("PGHOST") or "localhost"
