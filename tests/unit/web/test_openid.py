"""What a token says is believed only where the provider says it, to us, for this login, now."""

from __future__ import annotations

import functools
import hmac
import json
import time
from base64 import urlsafe_b64encode
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from starlette.exceptions import HTTPException
from starlette.requests import Request

from openworkflow.web.auth import COOKIE, Role
from openworkflow.web.openid import OpenId

ISSUER, CLIENT, SECRET = "https://id.example.com", "openworkflow", "a-secret-of-the-client"
KEY, OTHER = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
FULL = {"iss": ISSUER, "aud": CLIENT, "sub": "u1", "nonce": "n", "exp": int(time.time()) + 86_400}


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch) -> OpenId:
    """One that has asked its provider already, and does not find it again."""
    made = OpenId(ISSUER, CLIENT, SECRET, url="https://ops.example.com", default="viewer")
    made._known, made._keys = {"issuer": ISSUER}, KeySet([KEY])

    async def same(*, anew: bool = False) -> Any:
        return made._known

    monkeypatch.setattr(made, "_provider", same)
    return made


def signed(key: Any = KEY, alg: str = "RS256", **claims: Any) -> str:
    said = {name: value for name, value in (FULL | claims).items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "1"}, said, key, algorithms=[alg])


def by_hand(alg: str, key: bytes | None) -> str:
    """What no library signs: with a public key, which everybody has, as a shared secret; or not."""
    head = urlsafe_b64encode(f'{{"alg": "{alg}", "kid": "1"}}'.encode()).rstrip(b"=").decode()
    said = f"{head}.{signed().split('.')[1]}"
    made = b"" if key is None else hmac.digest(key, said.encode(), "sha256")
    return f"{said}.{urlsafe_b64encode(made).rstrip(b'=').decode()}"


async def test_a_token_of_the_provider_is_believed(auth: OpenId) -> None:
    assert "u1" == (await auth._verified(signed(), "n"))["sub"]
    assert "u1" == (await auth._verified(signed(aud=["others", CLIENT]), "n"))["sub"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        signed(OTHER),
        signed()[:-3] + "AAA",
        signed(OctKey.import_key(SECRET.encode()), "HS256"),
        by_hand("HS256", KEY.as_pem(private=False)),
        by_hand("none", None),
        signed(iss="https://id.example.org"),
        signed(aud="another-client"),
        signed(aud=["others"]),
        signed(nonce="of another login"),
        signed(nonce=None),
        signed(exp=int(time.time()) - 3600),
        signed(exp=None),
        signed(sub=None),
        signed(iss=None),
        signed(aud=None),
    ],
)
async def test_no_other_token_is(auth: OpenId, token: str) -> None:
    with pytest.raises(HTTPException) as refused:
        await auth._verified(token, "n")

    assert 403 == refused.value.status_code
    assert SECRET not in refused.value.detail


PUBLIC = KEY.as_dict(private=False)
CURVE = ECKey.generate_key("P-256", {"kid": "2"}).as_dict(private=False)
PLACES = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/begin",
    "token_endpoint": f"{ISSUER}/token",
    "userinfo_endpoint": f"{ISSUER}/who",
    "jwks_uri": f"{ISSUER}/keys",
}


NOWHERE: tuple[Any, ...] = (5, "", [], "/who", "http://[")


def provided(
    monkeypatch: pytest.MonkeyPatch, places: Any, keys: Any, more: Any = None, **claims: Any
) -> OpenId:
    """One whose provider answers with these documents."""
    said = {"id_token": signed(**claims), "access_token": "a"}
    documents = {"/keys": keys, "/token": said, "/who": more or {}}

    def answer(request: httpx.Request) -> httpx.Response:
        found = documents.get(request.url.path, places)
        return httpx.Response(200, content=found if isinstance(found, bytes) else json.dumps(found))

    client = functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "AsyncClient", client)
    return OpenId(ISSUER, CLIENT, SECRET, url="https://ops.example.com", roles={"sre": "admin"})


@pytest.mark.parametrize(
    "places",
    [
        *({**PLACES, name: what} for name in PLACES for what in NOWHERE),
        {**PLACES, "jwks_uri": None},
        {"issuer": ISSUER},
        [PLACES],
        b"<html>",
        b"[" * 100_000,
    ],
)
async def test_a_provider_that_does_not_say_where_it_is_asked_is_told_of(
    monkeypatch: pytest.MonkeyPatch, places: Any
) -> None:
    """A page said that the server was in error, with a traceback in its log."""
    auth = provided(monkeypatch, places, {"keys": [PUBLIC]})
    with pytest.raises(HTTPException, match="the OpenID provider") as refused:
        await auth.leave("", "/")

    assert 502 == refused.value.status_code


UNREADABLE = [
    None,
    "x",
    {},
    {**PUBLIC, "n": "!!"},
    {**PUBLIC, "n": ""},
    {**PUBLIC, "kty": ["RSA"]},
    {**PUBLIC, "kid": 5},
    {**CURVE, "crv": "P-999"},
    {**CURVE, "x": CURVE["y"]},
    {"kty": "OKP", "crv": "Ed1", "x": "AA"},
    {"kty": "ML-DSA", "pub": "AA"},
]


@pytest.mark.parametrize("key", UNREADABLE)
async def test_a_key_that_cannot_be_read_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    auth = provided(monkeypatch, PLACES, {"keys": [key, PUBLIC]})
    assert 303 == (await auth.leave("", "/")).status_code
    assert "u1" == (await auth._claims("code", "v", "n"))["sub"]


@pytest.mark.parametrize(
    "keys", [{}, {"keys": None}, {"keys": 5}, {"keys": {}}, {"keys": []}, {"keys": UNREADABLE}, []]
)
async def test_a_provider_without_a_key_is_told_of(
    monkeypatch: pytest.MonkeyPatch, keys: Any
) -> None:
    auth = provided(monkeypatch, PLACES, keys)
    with pytest.raises(HTTPException, match="the OpenID provider") as refused:
        await auth.leave("", "/")

    assert 502 == refused.value.status_code


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": [{"name": "sre"}, ["sre"], None, "sre", "sre"]}, Role.ADMIN),
        ({"groups": [{"name": "sre"}]}, None),
        ({"groups": {"sre": True}}, None),
        ({"groups": "sre", "preferred_username": "a" * 9000}, Role.ADMIN),
        ({"groups": "sre", "preferred_username": "\ud800"}, Role.ADMIN),
        ({"groups": "sre", "email": ["a"], "email_verified": True}, Role.ADMIN),
    ],
)
async def test_whatever_is_claimed_a_cookie_can_keep_who_it_is(
    monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any], role: Role | None
) -> None:
    auth = provided(monkeypatch, PLACES, {"keys": [PUBLIC]}, {"sub": "u1", **claims})
    login = auth._sealed("login", 60, state="s", nonce="n", verifier="v", to="/")
    cookie = f"openworkflow_openid={login}".encode()
    scope = {"type": "http", "query_string": b"state=s&code=c", "headers": [(b"cookie", cookie)]}
    if role is None:
        with pytest.raises(HTTPException, match="no role is for them"):
            await auth.arrive(Request(scope), "")
        return
    answer = await auth.arrive(Request(scope), "")
    session = SimpleCookie(answer.headers["set-cookie"])[COOKIE].value
    kept = auth._opened(session, "session")

    assert kept is not None
    assert (role, True) == (auth._role(kept["known_as"]), len(session) < 4000)


async def test_a_provider_need_not_tell_more_than_is_in_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth = provided(monkeypatch, {**PLACES, "userinfo_endpoint": None}, {"keys": [PUBLIC]})
    assert "u1" == (await auth._claims("code", "v", "n"))["sub"]


@pytest.mark.parametrize(
    "header",
    [
        {"alg": ["RS256"]},
        {"alg": {}},
        {"alg": None},
        {"kid": ["1"]},
        {"kid": {}},
        {"crit": ["exp"]},
        {"crit": 5},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"alg": "dir", "enc": "A256GCM"},
        [],
        "RS256",
        5,
    ],
)
async def test_no_header_of_a_token_is_a_defect_of_ours(auth: OpenId, header: Any) -> None:
    told = {"alg": "RS256", "kid": "1", **header} if isinstance(header, dict) else header
    first = urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
    with pytest.raises(HTTPException) as refused:
        await auth._verified(f"{first}.{signed().partition('.')[2]}", "n")

    assert 403 == refused.value.status_code
