"""The dashboard as an ASGI application: its routes, and what a mistake is answered."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message

from openworkflow.client import OpenWorkflow
from openworkflow.core.errors import (
    BackendError,
    ConfigurationError,
    OpenWorkflowError,
    RunNotFound,
)
from openworkflow.core.filters import LENGTH_LIMIT
from openworkflow.web import actions
from openworkflow.web.actions import ACTIONS, BULK, Action, Done
from openworkflow.web.auth import (
    ARRIVAL,
    COOKIE,
    LOGIN_SECONDS,
    Auth,
    LogsInElsewhere,
    Loopback,
    TakesToken,
)
from openworkflow.web.headers import SecureHeaders, check_same_site
from openworkflow.web.live import Hub
from openworkflow.web.pages import PAGES, Page
from openworkflow.web.pages.runs import options_of
from openworkflow.web.prefix import Prefixed, checked
from openworkflow.web.rendering import NOTE, Renderer
from openworkflow.web.site import Place, Redact, Site, place_of
from openworkflow.web.words import segment

BASE = "/n/{namespace}"
"""The path of what is of one namespace. Not a Mount: within one, nobody knows the path of all."""
LONGEST_FORM = 1_000_000
"""Bytes of what is sent to an action."""
LONGEST_TO = 1500
"""Characters of a path that somebody is led back to: a cookie holds 4096, and it is one part."""
AGAIN = "Nothing was done: you were not logged in any more. Do it again."
ASKED = ("where", "after", "before", "with")
"""Parameters of a query that a page heeds."""
LONGEST_NOTE = 3000
"""Characters of a cookie with a note: a browser keeps none of more than 4096, and says nothing."""


def dashboard(
    ow: OpenWorkflow | Mapping[str, OpenWorkflow],
    *,
    auth: Auth | None = None,
    redact: Redact | None = None,
    prefix: str = "",
) -> ASGIApp:
    """The dashboard of a client's namespace, or of several, as an ASGI application to mount.

    Without `auth` it answers requests from the machine itself alone; see openworkflow.web.auth.
    `redact(what, value)` is called with each input, output, result, status, error and explanation
    before it is shown. `prefix` is the path under which a proxy has it, whether that takes it off
    or not; an application that it is mounted in says it itself. Raises ConfigurationError.
    """
    clients = {ow._backend.namespace_id: ow} if isinstance(ow, OpenWorkflow) else dict(ow)
    if not clients or not all(isinstance(each, OpenWorkflow) for each in clients.values()):
        raise ConfigurationError("dashboard takes an OpenWorkflow, or several by their namespaces")
    site = Site(clients, auth or Loopback(), redact, Hub())
    pages = _Pages(site)
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/healthz", _healthz),
            Route("/login", pages.log_in, methods=["POST"]),
            Route("/logout", pages.log_out, methods=["POST"]),
            *([Route(ARRIVAL, pages.arrive)] if isinstance(site.auth, LogsInElsewhere) else []),
            Mount("/static", StaticFiles(packages=[("openworkflow.web", "static")])),
            *pages.routes(),
        ],
        middleware=[Middleware(Prefixed, prefix=checked(prefix)), Middleware(SecureHeaders)],
        exception_handlers={
            HTTPException: pages.refused,
            OpenWorkflowError: pages.failed,
        },
    )


class _Pages:
    """What answers requests."""

    def __init__(self, site: Site) -> None:
        self._site, self._render = site, Renderer(site)

    def routes(self) -> list[Route]:
        """Routes of each namespace: the pages, what follows them, and the actions."""
        found = [
            Route(f"{BASE}/bulk", self.bulk, methods=["POST"]),
            Route(f"{BASE}/runs/options", self.options, methods=["GET"]),
        ]
        for page in PAGES:
            found += [
                Route(f"{BASE}{page.path}/live", partial(self.live, page), methods=["GET"]),
                Route(f"{BASE}{page.path}", partial(self.page, page), methods=["GET"]),
            ]
        for action in ACTIONS:
            path = f"{BASE}{action.path}"
            found.append(Route(path, partial(self.act, action), methods=["POST"]))
        return found

    async def home(self, request: Request) -> Response:
        """The namespaces; the one that there is."""
        caller, root = await self._site.caller(request), request.scope.get("root_path", "")
        seen = [name for name in self._site.clients if caller.role_in(name) is not None]
        if len(seen) == 1:
            return RedirectResponse(f"{root}/n/{segment(seen[0])}", 303)
        return await self._render.home(root, seen)

    async def page(self, page: Page, request: Request) -> Response:
        """A page."""
        place = await place_of(self._site, request)
        note = unquote(request.cookies.get(NOTE, ""))
        answer = await self._render.page(place, page, _asked(request), note)
        if note:
            answer.delete_cookie(NOTE, path=place.root or "/")
        return answer

    async def options(self, request: Request) -> Response:
        """What may come next in a filter."""
        place = await place_of(self._site, request)
        typed = request.query_params.get("where", "")[:LENGTH_LIMIT]
        return self._render.options(await options_of(place, typed))

    async def live(self, page: Page, request: Request) -> Response:
        """What a page looks like, whenever that changes: server-sent events."""
        place = await place_of(self._site, request)
        events = self._render.followed(place, page, _asked(request))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def act(self, action: Action, request: Request) -> Response:
        """Do something, and go to the page that shows it."""
        check_same_site(request)
        place = await place_of(self._site, request, action.role)
        of, form = dict(request.path_params), await _form(request)
        of |= {"name": unquote(of["name"])} if "name" in of else {}
        try:
            done = await actions.perform(place, action.act, of, form)
        except RunNotFound:
            raise
        except OpenWorkflowError as error:
            in_doubt = isinstance(error, BackendError) and error.in_doubt
            told = "Whether it was done is not known" if in_doubt else "Nothing was done"
            done = Done(_before(action, of), f"{told}: {error}")
        return _go(place, done)

    async def bulk(self, request: Request) -> Response:
        """Say how many runs an action on a filter means; and then do it."""
        check_same_site(request)
        form = await _form(request)
        action, where = form.get("action", ""), form.get("where", "")
        if action not in BULK:
            raise HTTPException(400, "there is no such action")
        place = await place_of(self._site, request, BULK[action])
        if not where.strip():
            raise HTTPException(400, "a filter that says nothing means every run; say which")
        found: dict[str, Any] = {"done": None, "passed": 0, "cursor": None, "trouble": None}
        if form.get("sure") == "yes":
            before = int(form["done"][:18]) if form.get("done", "").isdecimal() else 0
            acted = await actions.bulk(place, action, where, form.get("cursor") or None)
            found = {**asdict(acted), "done": before + acted.done}
        count = None
        try:
            count = await place.ow.count_runs(where, action)  # type: ignore[arg-type]
        except BackendError:
            if found["done"] is None:
                raise  # what was done is told, though nobody knows how many are left
        return self._render.bulk(place, action=action, where=where, count=count, **found)

    async def log_in(self, request: Request) -> Response:
        """Take a token, and keep a cookie that stands for it."""
        check_same_site(request)
        root, form = request.scope.get("root_path", ""), await _form(request)
        auth, token = self._site.auth, form.get("token", "").strip()
        session = auth.session_of(token) if isinstance(auth, TakesToken) else None
        to = form.get("to", "")
        if session is None:
            actions.record_refusal(None, request, "log in", "no token of this dashboard")
            return self._render.login(root, to, "That is not a token of this dashboard.")
        answer = RedirectResponse(_own_path(root, to), 303)
        answer.set_cookie(
            COOKIE,
            session,
            path=root or "/",
            httponly=True,
            samesite="lax",
            # Behind a proxy that ends TLS the scheme is http; where the page is from, browsers say.
            secure=request.url.scheme == "https"
            or request.headers.get("origin", "").startswith("https:"),
        )
        return answer

    async def arrive(self, request: Request) -> Response:
        """Take in who logged in elsewhere."""
        auth = self._site.auth
        assert isinstance(auth, LogsInElsewhere)  # only then there is this route
        return await auth.arrive(request, request.scope.get("root_path", ""))

    async def log_out(self, request: Request) -> Response:
        """Forget the cookie."""
        check_same_site(request)
        root = request.scope.get("root_path", "")
        answer: Response = RedirectResponse(f"{root}/", 303)
        if isinstance(self._site.auth, LogsInElsewhere):  # that would have them in again at once
            answer = self._render.refused(root, 200, "You are logged out here.")
        answer.delete_cookie(COOKIE, path=root or "/")
        return answer

    async def refused(self, request: Request, error: Exception) -> Response:
        """What an HTTP status means here."""
        assert isinstance(error, HTTPException)
        root = request.scope.get("root_path", "")
        if error.status_code == 403:
            await self._record(request, error.detail)
        to, note = _asked_for(request), None
        if request.method not in ("GET", "HEAD"):
            to, note = _own_path(root, _asked_from(request)), AGAIN
        auth, is_page = self._site.auth, "text/html" in request.headers.get("accept", "")
        if error.status_code == 401 and isinstance(auth, LogsInElsewhere) and is_page:
            try:
                answer = await auth.leave(root, to)
                return answer if note is None else _with_note(answer, root, note, LOGIN_SECONDS)
            except HTTPException as failed:
                error = failed
        if error.status_code == 401 and isinstance(auth, TakesToken):
            return self._render.login(root, to, note)
        return self._render.refused(root, error.status_code, error.detail)

    async def _record(self, request: Request, why: str) -> None:
        """Write down who was refused what."""
        try:
            who = (await self._site.caller(request)).name
        except (HTTPException, OpenWorkflowError):
            who = None
        actions.record_refusal(who, request, f"{request.method} {request.url.path}", why)

    async def failed(self, request: Request, error: Exception) -> Response:
        """What our own errors mean to somebody who looks."""
        root = request.scope.get("root_path", "")
        if isinstance(error, RunNotFound):
            gone = "There is no such run here: it was deleted, or belongs to another namespace."
            return self._render.refused(root, 404, gone)
        status = 503 if isinstance(error, BackendError) else 400
        return self._render.refused(root, status, str(error))


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _asked(request: Request) -> dict[str, str]:
    """What is asked of a page, by its path and its query."""
    asked = {name: request.query_params[name] for name in ASKED if name in request.query_params}
    return asked | {
        name: str(value) for name, value in request.path_params.items() if name == "run_id"
    }


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException 400 and 413."""
    left = LONGEST_FORM

    async def received() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:  # who sends in pieces does not say how long it is
            raise HTTPException(413, f"that is more than {LONGEST_FORM:,} bytes")
        return message

    try:
        form: FormData = await Request(request.scope, received).form(max_files=0, max_fields=20)
    except ClientDisconnect:
        raise HTTPException(400, "it was not sent to its end") from None
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _asked_for(request: Request) -> str:
    """The path and the query of a page, to come back to; the path where that is too much."""
    to, query = request.url.path, request.url.query
    return f"{to}?{query}" if query and len(to) + len(query) < LONGEST_TO else to[:LONGEST_TO]


def _asked_from(request: Request) -> str:
    """The path and the query of the page that a form is of, as its browser says."""
    try:
        page = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # "http://[": no browser says so
        return ""
    if page.path.endswith("/bulk"):  # which nobody comes back to
        return f"{page.path.removesuffix('bulk')}runs"
    to = f"{page.path}?{page.query}" if page.query else page.path
    return to if len(to) < LONGEST_TO else page.path[:LONGEST_TO]


def _before(action: Action, of: Mapping[str, Any]) -> str:
    """The page from which an action was asked for."""
    if "run_id" in of:
        return f"/runs/{of['run_id']}"
    return {"builds": "/fleet"}.get(action.path.split("/")[1], f"/{action.path.split('/')[1]}")


def _go(place: Place, done: Done) -> Response:
    """To a page, with a note that is shown there once."""
    return _with_note(RedirectResponse(f"{place.base}{done.to}", 303), place.root, done.note, 30)


def _with_note(answer: Response, root: str, note: str, seconds: int) -> Response:
    """An answer after which the next page says this, if it is seen so soon."""
    answer.set_cookie(
        NOTE, _noted(note), max_age=seconds, path=root or "/", httponly=True, samesite="lax"
    )
    return answer


def _noted(note: str) -> str:
    """A note as a cookie holds it: an ideograph takes nine characters of it."""
    quoted = [quote(each, errors="replace") for each in note[:500]]
    while sum(map(len, quoted)) > LONGEST_NOTE:
        quoted.pop()
    return "".join(quoted)


def _own_path(root: str, to: str) -> str:
    """A path of the dashboard, and of nobody else."""
    try:
        parts = urlsplit(to)
    except ValueError:  # "//["
        return f"{root}/"
    is_own = not parts.scheme and not parts.netloc and to.startswith(f"{root}/")
    return to if is_own and not to.startswith("//") and "\\" not in to else f"{root}/"
