"""What a token says is believed only where the provider says it, to us, for this login, now."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.exceptions import HTTPException

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
