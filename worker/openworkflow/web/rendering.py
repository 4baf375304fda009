"""Pages as HTML: whole, as what changes of them, and as the few words of a refusal."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

from openworkflow.backend.board import MOST_COUNTED, Counts
from openworkflow.core.errors import BackendError, OpenWorkflowError
from openworkflow.web.auth import LogsInElsewhere, TakesToken
from openworkflow.web.live import SILENCE, TooManyPages
from openworkflow.web.pages import PAGES, Page
from openworkflow.web.site import Place, Site
from openworkflow.web.words import moment, short

NOTE = "openworkflow_note"
"""The cookie of what the next page is to tell, once."""
_HERE = "event: here\ndata:\n"
"""Changes nothing; the page would say after a while that nothing comes."""
_FULL = "event: full\ndata:\n\n"
MENU = [page for page in PAGES if page.name not in ("run", "compare")]
_TITLES = {
    200: "Until next time",
    403: "That is not for you",
    404: "There is nothing here",
    502: "Nobody can log in",
    503: "The database is away",
}


class Renderer:
    """Makes pages of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def page(self, place: Place, page: Page, asked: Mapping[str, str], note: str) -> Response:
        """A whole page; while the database is away, one that shows it once it is back."""
        status, trouble = 200, None
        try:
            found = await page.load(place, asked)
        except BackendError as error:
            found, status, trouble = {}, 503, str(error)
        live = f"{place.base}{_path(page, asked)}/live?{urlencode(_query(asked))}"
        return self._html(
            "page.html" if trouble is None else "away.html",
            status,
            **self._common(place, page) | found,
            note=note,
            trouble=trouble,
            live=None if found.get("is_final") else live,
        )

    async def followed(
        self, place: Place, page: Page, asked: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """What changes of a page, as server-sent events."""
        template = self._site.templates.get_template("fragment.html")
        common = self._common(place, page)

        async def make() -> str:
            return template.render(**common | await page.load(place, asked), trouble=None)

        def trouble(error: OpenWorkflowError, since: datetime) -> str:
            told = f"What is shown is of {moment(since)} UTC: {short(error, 300)}"
            return template.render(**common | {"page_name": None}, trouble=told)

        key = (place.namespace, place.role, place.root, page.name, *sorted(asked.items()))
        try:
            async with aclosing(self._site.hub.follow(key, make, trouble)) as versions:
                async for html in versions:
                    yield _dated(_HERE if html is None else _event(html))
        except TooManyPages:
            yield _FULL
            await asyncio.sleep(SILENCE)  # then the browser asks again

    async def home(self, root: str, names: Sequence[str]) -> Response:
        """The namespaces that somebody may see, and how busy each is."""
        found: list[tuple[str, Counts | None]] = []
        for name in names:
            try:
                found.append((name, await self._site.clients[name]._backend.board.counts()))
            except BackendError:
                found.append((name, None))
        return self._html(
            "home.html", 200, root=root, title="Namespaces", found=found, most=MOST_COUNTED
        )

    def bulk(self, place: Place, **found: Any) -> Response:
        """What a bulk action means, and what it has done."""
        page = Page("bulk", "/bulk", f"{found['action']} runs", PAGES[0].load)
        return self._html(
            "page.html",
            503 if found["trouble"] else 200,
            **self._common(place, page) | found,
            note="",
            live=None,
        )

    def options(self, options: Sequence[str]) -> Response:
        """Suggestions for the filter."""
        return self._html("options.html", 200, options=options)

    def login(self, root: str, to: str, note: str | None) -> Response:
        """The question for a token."""
        return self._html("login.html", 401, root=root, title="Log in", to=to, note=note)

    def refused(self, root: str, status: int, note: str) -> Response:
        """Why there is nothing to see."""
        if status == 401:
            note = (
                "Nobody who is known here asks. Without auth= the dashboard is open to its own "
                "machine alone, by the name localhost."
            )
        title = _TITLES.get(status, "That cannot be done")
        return self._html("refused.html", status, root=root, title=title, note=note)

    def _common(self, place: Place, page: Page) -> dict[str, Any]:
        """What every page of a namespace is given."""
        seen = [name for name in self._site.clients if place.caller.role_in(name) is not None]
        return {
            "root": place.root,
            "place": place,
            "page_name": page.name,
            "title": f"{page.title} · {place.namespace}",
            "menu": MENU,
            "namespaces": seen,
            "can_log_out": isinstance(self._site.auth, TakesToken | LogsInElsewhere),
        }

    def _html(self, template: str, status: int, **found: Any) -> Response:
        html = self._site.templates.get_template(template).render(
            served_at=datetime.now(UTC), **found
        )
        return HTMLResponse(html, status, {"cache-control": "no-store"})


def _path(page: Page, asked: Mapping[str, str]) -> str:
    return page.path.replace("{run_id:uuid}", asked.get("run_id", ""))


def _query(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in asked.items() if name != "run_id"}


def _event(html: str) -> str:
    """The data of one event, whatever ends its lines."""
    return "".join(f"data: {line}\n" for line in html.splitlines())


def _dated(event: str) -> str:
    """A message with an event, whose id says when it was, by a clock that is ours."""
    return f"id: {moment(datetime.now(UTC))}\n{event}\n"
