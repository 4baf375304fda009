"""The connection URL of a tenant, read as the hostile input it may be.

Whoever may write a WorkflowNamespace chooses where the operator connects. It must not make the
operator read files, use its own credentials or reach its own machine; so only TCP hosts and a few
parameters are taken, and nothing of the URL is ever part of an error.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from openworkflow_contract.schemes import SCHEME

MOST_HOSTS: Final = 8
LONGEST_URL: Final = 8192

#: Of no use to the operator, so left out.
_IGNORED: Final = frozenset(
    {"application_name", "connect_timeout", "options", "pool_size", "channel_binding"}
)
_REFUSED: Final = frozenset(
    {
        "host",
        "hostaddr",
        "passfile",
        "service",
        "servicefile",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslpassword",
        "sslrootcert",
    }
)


class InvalidUrl(Exception):
    """The URL cannot be used; the message says what is allowed and holds nothing of it."""


class TlsMode(StrEnum):
    """How much of TLS the URL asks for."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


@dataclass(frozen=True, slots=True)
class Dsn:
    """What is needed to connect, and nothing else of the URL."""

    hosts: tuple[str, ...] = field(repr=False)
    ports: tuple[int, ...] = field(repr=False)
    database: str = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)
    tls: TlsMode = TlsMode.PREFER

    @property
    def place(self) -> tuple[object, ...]:
        """Place of the database, equal for all its users."""
        return (tuple(host.lower() for host in self.hosts), self.ports, self.database)


def parse(url: str) -> Dsn:
    """Read a URL `postgresql://user:password@host:5432/database`. Raises InvalidUrl."""
    if len(url) > LONGEST_URL or "\0" in url:
        raise InvalidUrl(f"the URL must have at most {LONGEST_URL} characters and no NUL")
    try:
        parts = urlsplit(url.strip())
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        raise InvalidUrl(_FORM) from None
    if not re.fullmatch(SCHEME, parts.scheme):
        raise InvalidUrl(_FORM)
    _check(parameters)
    hosts, ports = _places(parts, parameters)
    user, password, database = _identity(parts, parameters)
    return Dsn(hosts, ports, database, user, password, _tls(parameters))


def check_address(address: str) -> None:
    """Refuse an address by which the operator would reach itself. Raises InvalidUrl."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return
    mapped = getattr(ip, "ipv4_mapped", None)
    for each in (ip, mapped):
        if each is not None and (
            each.is_loopback or each.is_link_local or each.is_unspecified or each.is_multicast
        ):
            raise InvalidUrl(
                "the host of the URL must not be a loopback, link-local or multicast address"
            )


def tls_context(mode: TlsMode, ca_file: str | None) -> ssl.SSLContext | None:
    """The context to connect with, None without TLS. CAs come from the operator's own file."""
    if mode is TlsMode.DISABLE:
        return None
    if mode in (TlsMode.PREFER, TlsMode.REQUIRE):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context = ssl.create_default_context(cafile=ca_file)
    context.check_hostname = mode is TlsMode.VERIFY_FULL
    return context


def digest(url: str, salt: str) -> str:
    """A fingerprint that changes with the URL and cannot be tried against guessed passwords.

    Deliberately slow (about 20 ms); salted with the resource's uid, so it needs no key to keep.
    """
    slow = hashlib.scrypt(url.encode(), salt=salt.encode(), n=2**12, r=8, p=1, dklen=8)
    return slow.hex()


_FORM: Final = (
    "the URL must have the form postgresql://user:password@host:5432/database, "
    "with special characters of the parts percent-encoded"
)


def _check(parameters: Mapping[str, str]) -> None:
    for name in sorted(_REFUSED & parameters.keys()):
        raise InvalidUrl(f"the URL must not have the parameter {name}: the operator reads no files")
    known = _IGNORED | {"sslmode", "target_session_attrs", "port", "user", "password", "dbname"}
    if parameters.keys() - known:
        raise InvalidUrl(f"the URL has a parameter that is not one of {', '.join(sorted(known))}")


def _places(
    parts: SplitResult, parameters: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    pairs = [_place(text, parameters) for text in parts.netloc.rpartition("@")[2].split(",")]
    if len(pairs) > MOST_HOSTS:
        raise InvalidUrl(f"the URL must name at most {MOST_HOSTS} hosts")
    return tuple(host for host, _ in pairs), tuple(port for _, port in pairs)


def _place(text: str, parameters: Mapping[str, str]) -> tuple[str, int]:
    bracketed = text.startswith("[")
    host, _, rest = text[1:].partition("]") if bracketed else text.partition(":")
    port = (rest.removeprefix(":") if bracketed else rest) or parameters.get("port") or "5432"
    host = unquote(host)
    allowed = host.isascii() and all(c.isalnum() or c in "-._:" for c in host)
    if not host or len(host) > 253 or not allowed or host.startswith((".", "-")):
        raise InvalidUrl("the host of the URL must be a DNS name or an IP address, not a socket")
    number = port.lstrip("0")
    if not (port.isascii() and port.isdigit() and number and int(number[:6]) < 65536):
        raise InvalidUrl("the port of the URL must be a number from 1 to 65535")
    return host, int(port)


def _identity(parts: SplitResult, parameters: Mapping[str, str]) -> tuple[str, str, str]:
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    user = parameters.get("user") or unquote(user)
    password = parameters.get("password") or unquote(password)
    database = parameters.get("dbname") or unquote(parts.path.removeprefix("/")) or user
    if not user or "\0" in user + password + database:
        raise InvalidUrl("the URL must name a user; parts must not contain NUL")
    return user, password, database


def _tls(parameters: Mapping[str, str]) -> TlsMode:
    mode = parameters.get("sslmode", "prefer").replace("allow", "prefer")
    try:
        return TlsMode(mode)
    except ValueError:
        raise InvalidUrl(f"`sslmode` must be one of {', '.join(TlsMode)}") from None
