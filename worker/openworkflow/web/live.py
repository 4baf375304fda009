"""Pages that follow what they show: each is looked at once a second, however many look at it.

Whoever opens a page joins those who have the same one open. The page is made anew each second while
somebody does, and sent to all where it is not as it was. When the database does not answer, what
was shown stays, and says since when it is old.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from openworkflow.core.errors import OpenWorkflowError

PERIOD = 1.0
"""Seconds between two looks."""
SHARE = 10.0
"""How many times as long as a look took there is none: what is slow is looked at less often."""
SILENCE = 15.0
"""Seconds after which a comment keeps proxies from ending the connection."""
LONGEST = 600.0
"""Seconds of a connection; the browser opens another, and is asked again who it is."""
MOST_PAGES = 200
"""Different pages that are followed at once; more are shown, and do not follow."""
MOST_BEHIND = 2
"""Versions that a slow reader may be behind; older ones it never gets."""

Make = Callable[[], Awaitable[str]]
"""Makes a page as HTML. Raises OpenWorkflowError."""
Trouble = Callable[[OpenWorkflowError, datetime], str]
"""What is told of a look that failed, first then."""

logger = logging.getLogger(__name__)


class TooManyPages(Exception):
    """MOST_PAGES are followed already."""


class Followed:
    """A page that some follow."""

    def __init__(self, make: Make, trouble: Trouble) -> None:
        self._make, self._trouble = make, trouble
        self._readers: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: str | None = None

    def join(self) -> "asyncio.Queue[str]":
        """A queue of what it looks like from now on."""
        reader: asyncio.Queue[str] = asyncio.Queue(MOST_BEHIND)
        if self._last is not None:
            reader.put_nowait(self._last)
        self._readers.add(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        return reader

    def leave(self, reader: "asyncio.Queue[str]") -> bool:
        """Whether that was the last reader; nothing is looked at any more then."""
        self._readers.discard(reader)
        if self._readers or self._task is None:
            return not self._readers
        self._task.cancel()
        self._task = None
        return True

    async def _follow(self) -> None:
        failed_at: datetime | None = None
        is_faulty = False
        page: str | None
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                page = await self._make()
                failed_at, is_faulty = None, False
            except OpenWorkflowError as error:
                failed_at = failed_at or datetime.now(UTC)
                page = self._trouble(error, failed_at)
            except Exception:  # the next look may be of another moment, and be well
                if not is_faulty:
                    logger.exception("a page of the dashboard cannot be made")
                page, is_faulty = self._last, True
            if page is not None and page != self._last:
                self._last = page
                for reader in self._readers:
                    if reader.full():
                        reader.get_nowait()
                    reader.put_nowait(page)
            await asyncio.sleep(max(PERIOD, SHARE * (loop.time() - began)))


class Hub:
    """The pages that are followed."""

    def __init__(self) -> None:
        self._pages: dict[Any, Followed] = {}

    async def follow(
        self, key: Any, make: Make, trouble: Trouble
    ) -> AsyncGenerator[str | None, None]:
        """What the page of this key looks like, whenever it changes; None when it has not.

        Raises TooManyPages.
        """
        page = self._pages.get(key)
        if page is None:
            if len(self._pages) >= MOST_PAGES:
                raise TooManyPages
            page = self._pages[key] = Followed(make, trouble)
        reader = page.join()
        try:
            ends_at = asyncio.get_running_loop().time() + LONGEST
            while asyncio.get_running_loop().time() < ends_at:
                try:
                    async with asyncio.timeout(SILENCE):
                        now = await reader.get()
                except TimeoutError:
                    yield None
                else:
                    yield now
        finally:
            if page.leave(reader) and self._pages.get(key) is page:
                del self._pages[key]
