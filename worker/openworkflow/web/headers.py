"""What every answer says to the browser, and whose requests are acted on."""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No code or style within a page: a value of a run that was shown as it is could do nothing."""
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


class SecureHeaders:
    """Adds HEADERS to each answer; pages are kept by nobody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                is_static = "/static/" in scope["path"]
                headers.setdefault("cache-control", "no-cache" if is_static else "no-store")
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def check_same_site(request: Request) -> None:
    """Refuse what a page of another site has the browser send. Raises HTTPException 403.

    Browsers say where a request is from, and no page can have them say otherwise: Sec-Fetch-Site
    over HTTPS and on localhost, Origin with every POST.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        is_own = site == "same-origin"
    else:
        origin = _host_of(request.headers.get("origin", ""))
        is_own = bool(origin) and origin == request.headers.get("host")
    if not is_own:
        raise HTTPException(
            403,
            "this did not come from a page of the dashboard itself; if it did, a proxy in between "
            "has to pass Host on as it is",
        )


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # "http://[": no browser says so
        return ""
