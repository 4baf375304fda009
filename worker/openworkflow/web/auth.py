"""Who looks at the dashboard, and what they may do there.

Nobody is let in by default but who sits at the machine itself. `Tokens` lets in who knows one,
`openid.OpenId` whom an OpenID provider knows; `ProxyHeader` trusts a proxy that has asked. Any
async function of the request to a `Caller`, or None, does the same.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

COOKIE = "openworkflow_dashboard"
ARRIVAL = "/openid"
"""Where people come back to from where they logged in."""
LOGIN_SECONDS = 600
"""How long they may take there."""
TOKEN_LENGTH = 16
"""The fewest characters of a token: it is all that is asked for."""
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    """Look."""
    OPERATOR = 2
    """Retry, cancel, pause, resume, signal and fork; trigger, pause and resume schedules."""
    ADMIN = 3
    """Delete runs, cancel them without their undo, promote and hold builds, change limits."""

    @classmethod
    def named(cls, name: object) -> "Role":
        """The role of this name. Raises ConfigurationError."""
        if isinstance(name, Role):
            return name
        known = {role.name.lower(): role for role in cls}
        if not isinstance(name, str) or name not in known:
            raise ConfigurationError(
                f"there is no role {shown(name)}; there are {', '.join(known)}"
            )
        return known[name]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in."""

    name: str
    """What the audit log calls them."""
    role: Role | Mapping[str, Role]
    """In all namespaces, or in each of these; the others are not there for them."""

    def __post_init__(self) -> None:
        """Take names of roles for them. Raises ConfigurationError."""
        given = self.role
        if isinstance(given, Mapping):
            given = {namespace: Role.named(role) for namespace, role in given.items()}
        else:
            given = Role.named(given)
        object.__setattr__(self, "role", given)

    def role_in(self, namespace: str) -> Role | None:
        """Their role in a namespace; None if it is not for them to see."""
        return self.role if isinstance(self.role, Role) else self.role.get(namespace)


class Auth(Protocol):
    """Any async function of a request."""

    def __call__(self, request: HTTPConnection, /) -> Awaitable[Caller | None]:
        """Who asks; None for somebody who is not known."""


@runtime_checkable
class TakesToken(Protocol):
    """An `Auth` that people log in to with a token."""

    def session_of(self, token: str) -> str | None:
        """What their cookie is to hold; None for a token that is none."""


@runtime_checkable
class LogsInElsewhere(Protocol):
    """An `Auth` whose people log in somewhere else, and come back to ARRIVAL."""

    async def leave(self, root: str, to: str) -> Response:
        """Send somebody there."""

    async def arrive(self, request: Request, root: str) -> Response:
        """Take in who comes back."""


class Loopback:
    """Whoever comes from this machine, by one of its own names, is an admin.

    The name is looked at because a page of another site may have its own name lead to 127.0.0.1.
    """

    async def __call__(self, request: HTTPConnection) -> Caller | None:
        """See Auth."""
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        address = _address(request)
        if address is None or name not in LOOPBACK_HOSTS or not _is_direct(request):
            return None
        return Caller("local", Role.ADMIN) if address.is_loopback else None


class Tokens:
    """Whoever knows a token has its role: `Tokens({"…": "viewer", "…": ("ann", "admin")})`.

    As `Authorization: Bearer`, or typed into the page, which keeps a cookie that scripts cannot
    read. Raises ConfigurationError.
    """

    def __init__(self, roles: Mapping[str, str | Role | tuple[str, str | Role]]) -> None:
        self._callers: dict[str, Caller] = {}
        for place, (token, given) in enumerate(roles.items(), 1):
            if len(token) < TOKEN_LENGTH:
                raise ConfigurationError(
                    f"a token of the dashboard has at least {TOKEN_LENGTH} characters: make one "
                    "with `openssl rand -hex 20`"
                )
            name, role = given if isinstance(given, tuple) else (f"token {place}", given)
            self._callers[_session(token)] = Caller(name, Role.named(role))
        if not self._callers:
            raise ConfigurationError("Tokens needs a token, or nobody can log in")

    async def __call__(self, request: HTTPConnection) -> Caller | None:
        """See Auth."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._known(_session(token.strip()))
        return self._known(request.cookies.get(COOKIE, ""))

    def session_of(self, token: str) -> str | None:
        """See TakesToken."""
        session = _session(token)
        return None if self._known(session) is None else session

    def _known(self, session: str) -> Caller | None:
        """In a time that does not tell how much of it was right."""
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known.encode(), session.encode("utf-8", "replace")):
                found = caller
        return found


class ProxyHeader:
    """Whoever a trusted proxy names in a header: `ProxyHeader("X-Forwarded-User", ["10.0.0.0/8"],
    {"ann@example.com": "admin"}, default="viewer")`.

    A request that does not come from one of these networks is refused, whatever it says.
    """

    def __init__(
        self,
        header: str,
        trusted: Sequence[str],
        roles: Mapping[str, str | Role] | None = None,
        *,
        default: str | Role | None = None,
    ) -> None:
        self._header = header
        try:
            self._trusted = [ipaddress.ip_network(network) for network in trusted]
        except ValueError as error:
            raise ConfigurationError(
                f"trusted takes networks such as 10.0.0.0/8: {error}"
            ) from None
        if not self._trusted:
            raise ConfigurationError("ProxyHeader needs the networks of the proxies to trust")
        self._roles = {name: Role.named(role) for name, role in (roles or {}).items()}
        self._default = None if default is None else Role.named(default)

    async def __call__(self, request: HTTPConnection) -> Caller | None:
        """See Auth."""
        names = request.headers.getlist(self._header)
        address = _address(request)
        if address is None or len(names) != 1 or not names[0].strip():
            return None
        if not any(address in network for network in self._trusted):
            return None
        name = names[0].strip()
        role = self._roles.get(name, self._default)
        return None if role is None else Caller(name, role)


def _address(request: HTTPConnection) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Whence the connection is; None where that is no address, as of a socket in a folder."""
    try:
        found = ipaddress.ip_address("" if request.client is None else request.client.host)
    except ValueError:
        return None
    # What listens on "::" for both says of 10.0.0.1 that it is ::ffff:10.0.0.1.
    return getattr(found, "ipv4_mapped", None) or found


def _is_direct(request: HTTPConnection) -> bool:
    """Whether no proxy says that it brings somebody from elsewhere."""
    return not any(
        name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via")
    )


def _session(token: str) -> str:
    """What stands for a token in a cookie and in memory: it does not tell the token."""
    return hashlib.sha256(
        b"openworkflow dashboard\0" + token.encode("utf-8", "replace")
    ).hexdigest()
