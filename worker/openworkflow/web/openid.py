"""Who looks at the dashboard, as an OpenID provider says: Keycloak, Entra, Okta, Google, Dex.

The authorization code flow of OpenID Connect, with PKCE. What is kept is in cookies that this
module signs: while somebody logs in, what only they can bring back; then who they are, for hours.
"""

import contextlib
import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, KeySet, OctKey
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown
from openworkflow.web.auth import ARRIVAL, COOKIE, LOGIN_SECONDS, Caller, Role

_LOGIN = "openworkflow_openid"
_ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
"""Not HS256, for which everybody would do who knows the client's secret; nor none."""
_OWN = ["HS256"]
_INVALID = (JoseError, ValueError, TypeError)
"""What is raised for a token; the last for a header that is of another kind than it has to be."""
_WHERE = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_WHO = "userinfo_endpoint"
"""A provider need not have it."""
LONGEST_NAME = 200
"""Characters of a name: browsers keep no cookie of more than 4096, and say so to nobody."""
_ANSWER_SECONDS = 10.0
_KEPT_SECONDS = 3600.0
_CLOCK_SECONDS = 60
"""How far the provider's clock may be off."""


class OpenId:
    """Whoever the provider knows and `roles` names, by a value of the claim or by their name.

    `OpenId("https://id.example.com/realms/main", "openworkflow", secret,
    url="https://ops.example.com/workflows", roles={"sre": "admin", "ann@example.com": "viewer"})`.
    `url` is where people find the dashboard; register that and `/openid` with the provider. `roles`
    are for values of `claim`, and for emails that the provider has verified; `default` is for
    everybody else whom it knows. Who somebody is, is asked again after `hours`.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        *,
        url: str,
        roles: Mapping[str, str | Role] | None = None,
        claim: str = "groups",
        default: str | Role | None = None,
        hours: float = 8.0,
    ) -> None:
        for what, given in (("issuer", issuer), ("url", url)):
            if urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).netloc:
                raise ConfigurationError(f"{what} is a URL, https://..., not {shown(given)}")
        if not client_id or not client_secret:
            raise ConfigurationError("OpenId needs the client's id and its secret")
        self._issuer, self._url = issuer.rstrip("/"), url.rstrip("/")
        self._client_id, self._client_secret = client_id, client_secret
        self._roles = {name: Role.named(role) for name, role in (roles or {}).items()}
        self._default = None if default is None else Role.named(default)
        if not self._roles and self._default is None:
            raise ConfigurationError(
                "OpenId needs roles=, or a default= for all, or nobody gets in"
            )
        self._claim, self._seconds = claim, hours * 3600
        self._key = OctKey.import_key(
            hashlib.sha256(b"openworkflow dashboard openid\0" + client_secret.encode()).digest()
        )
        self._known: dict[str, Any] = {}
        self._keys = KeySet([])
        self._known_at = -_KEPT_SECONDS

    async def __call__(self, request: HTTPConnection) -> Caller | None:
        """See Auth."""
        session = self._opened(request.cookies.get(COOKIE, ""), "session")
        if session is None:
            return None
        role = self._role(session["known_as"])
        return None if role is None else Caller(session["name"], role)

    async def leave(self, root: str, to: str) -> Response:
        """Send somebody to the provider, from where they come back to the page `to`."""
        known = await self._provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
        asked = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": self._url + ARRIVAL,
                "scope": "openid email profile",
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge.decode(),
                "code_challenge_method": "S256",
            }
        )
        place = known["authorization_endpoint"]
        answer = RedirectResponse(f"{place}{'&' if '?' in place else '?'}{asked}", 303)
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "to": to}
        self._keep(answer, _LOGIN, self._sealed("login", LOGIN_SECONDS, **kept), root)
        return answer

    async def arrive(self, request: Request, root: str) -> Response:
        """Take in who comes back from the provider, and lead them where they were going.

        Raises HTTPException 400 and 403.
        """
        kept = self._opened(request.cookies.get(_LOGIN, ""), "login")
        asked = request.query_params
        if kept is None or not hmac.compare_digest(
            kept["state"].encode(), asked.get("state", "").encode()
        ):
            raise HTTPException(
                400, "this login was begun elsewhere, or long ago: open the dashboard again"
            )
        if "error" in asked:
            told = asked.get("error_description") or asked["error"]
            raise HTTPException(403, f"the OpenID provider let nobody in: {told[:300]}")
        claims = await self._claims(asked.get("code", ""), kept["verifier"], kept["nonce"])
        name, known_as = _name(claims), self._known_as(claims)
        if self._role(known_as) is None:
            raise HTTPException(403, f"the OpenID provider knows {name}, but no role is for them")
        answer = RedirectResponse(kept["to"], 303)
        session = self._sealed("session", self._seconds, name=name, known_as=known_as)
        self._keep(answer, COOKIE, session, root)
        answer.delete_cookie(_LOGIN, path=root or "/")
        return answer

    async def _claims(self, code: str, verifier: str, nonce: str) -> Mapping[str, Any]:
        known = await self._provider()
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
            told = await _json(
                http.post(
                    known["token_endpoint"],
                    data={
                        "grant_type": "authorization_code",
                        "code": code,
                        "redirect_uri": self._url + ARRIVAL,
                        "code_verifier": verifier,
                    },
                    auth=httpx.BasicAuth(self._client_id, self._client_secret),
                )
            )
            claims = dict(await self._verified(str(told.get("id_token", "")), nonce))
            place = known.get(_WHO)
            if self._claim not in claims and place and "access_token" in told:
                bearer = {"Authorization": f"Bearer {told['access_token']}"}
                more = await _json(http.get(place, headers=bearer))
                if more.get("sub") == claims["sub"]:
                    claims = {**more, **claims}
        return claims

    async def _verified(self, id_token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token; keys that are not known may be new ones."""
        try:
            try:
                token = jwt.decode(id_token, self._keys, algorithms=_ASYMMETRIC)
            except _INVALID:
                await self._provider(anew=True)
                token = jwt.decode(id_token, self._keys, algorithms=_ASYMMETRIC)
            jwt.JWTClaimsRegistry(
                leeway=_CLOCK_SECONDS,
                iss={"essential": True, "value": self._known["issuer"]},
                aud={"essential": True, "value": self._client_id},
                exp={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(token.claims)
        except _INVALID as error:
            raise HTTPException(
                403, f"what the OpenID provider said is not valid: {error}"
            ) from None
        return token.claims

    async def _provider(self, *, anew: bool = False) -> Mapping[str, Any]:
        """Where the provider is asked what, and its keys; asked for once an hour."""
        if not anew and time.monotonic() - self._known_at < _KEPT_SECONDS:
            return self._known
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
            known = await _json(http.get(f"{self._issuer}/.well-known/openid-configuration"))
            if str(known.get("issuer", "")).rstrip("/") != self._issuer:
                raise HTTPException(
                    502, "the OpenID provider is another issuer than was configured"
                )
            for name in (*_WHERE, *((_WHO,) if known.get(_WHO) is not None else ())):
                if not _is_url(known.get(name)):
                    raise HTTPException(502, f"the OpenID provider does not say its {name}")
            keys = _keys(await _json(http.get(known["jwks_uri"])))
        if not keys:
            raise HTTPException(502, "the OpenID provider gives no key that can be read")
        self._keys = keys
        self._known, self._known_at = known, time.monotonic()
        return known

    def _role(self, known_as: Sequence[str]) -> Role | None:
        """The highest that is theirs."""
        return max(
            (self._roles[each] for each in known_as if each in self._roles), default=self._default
        )

    def _known_as(self, claims: Mapping[str, Any]) -> list[str]:
        """What gives them a role; what they call themselves does not."""
        said = claims.get(self._claim, [])
        values = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        found = (each for each in (*values, _email(claims)) if isinstance(each, str))
        return [each for each in dict.fromkeys(found) if each in self._roles]

    def _sealed(self, use: str, seconds: float, **claims: Any) -> str:
        expires = int(time.time() + seconds)
        return jwt.encode({"alg": "HS256"}, {**claims, "use": use, "exp": expires}, self._key)

    def _opened(self, sealed: str, use: str) -> dict[str, Any] | None:
        """What a cookie of ours says; None for what is not, or not any more."""
        try:
            token = jwt.decode(sealed, self._key, algorithms=_OWN)
            jwt.JWTClaimsRegistry(
                exp={"essential": True}, use={"essential": True, "value": use}
            ).validate(token.claims)
        except _INVALID:
            return None
        return token.claims

    def _keep(self, answer: Response, cookie: str, value: str, root: str) -> None:
        answer.set_cookie(
            cookie,
            value,
            path=root or "/",
            httponly=True,
            samesite="lax",
            secure=self._url.startswith("https:"),
        )


def _name(claims: Mapping[str, Any]) -> str:
    """Who it is, in the audit log."""
    called, sub = claims.get("preferred_username"), str(claims["sub"])[:LONGEST_NAME]
    name = _email(claims) or (f"{str(called)[:LONGEST_NAME]} ({sub})" if called else sub)
    return name[: LONGEST_NAME * 2].encode("utf-8", "replace").decode()


def _email(claims: Mapping[str, Any]) -> str | None:
    """One that is not verified is whatever somebody typed."""
    return str(claims["email"]) if claims.get("email_verified") is True else None


def _is_url(given: object) -> bool:
    try:
        parts = urlsplit(given) if isinstance(given, str) else None
    except ValueError:  # "http://["
        return False
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.netloc)


def _keys(told: Mapping[str, Any]) -> KeySet:
    """The provider's keys but those that cannot be read, as of a kind that is newer than we are."""
    given, read = told.get("keys"), []
    for each in given if isinstance(given, list) else ():
        with contextlib.suppress(Exception):  # KeyError, of an unknown curve, TypeError and more
            key = JWKRegistry.import_key(each)
            key.ensure_kid()
            read.append(key)
    return KeySet(read)


async def _json(asked: Any) -> dict[str, Any]:
    """What the provider answers. Raises HTTPException 502, without what was sent."""
    try:
        answer = await asked
        told = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise HTTPException(
            502, f"the OpenID provider does not answer as one: {type(error).__name__}"
        ) from None
    if answer.status_code >= 400 or not isinstance(told, dict):
        why = told.get("error") if isinstance(told, dict) else None
        raise HTTPException(502, f"the OpenID provider refuses: {why or answer.status_code}")
    return told
