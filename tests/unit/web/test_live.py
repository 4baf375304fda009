"""Pages that are followed: one look for all, and what is told while a look fails."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from openworkflow.core.errors import BackendError, OpenWorkflowError
from openworkflow.web import live
from openworkflow.web.live import Hub, TooManyPages


class Source:
    """A page that is what it is set to, and counts how often it is looked at."""

    def __init__(self) -> None:
        self.page: str | Exception = "one"
        self.looks = 0
        self.looked = asyncio.Event()

    async def make(self) -> str:
        self.looks += 1
        self.looked.set()
        if isinstance(self.page, Exception):
            raise self.page
        return self.page

    async def again(self) -> None:
        """Until it was looked at twice more, so that what was set was seen."""
        for _ in range(2):
            self.looked.clear()
            await self.looked.wait()


def trouble(error: OpenWorkflowError, since: datetime) -> str:
    return f"away: {error}"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(live, "PERIOD", 0.001)
    monkeypatch.setattr(live, "SHARE", 0)
    return Source()


async def test_many_who_look_at_a_page_cost_one_look(source: Source) -> None:
    hub = Hub()
    readers = [hub.follow("page", source.make, trouble) for _ in range(50)]

    assert ["one"] * 50 == await asyncio.gather(*(anext(reader) for reader in readers))
    before = source.looks
    await source.again()
    assert source.looks <= before + 3

    source.page = "two"
    assert ["two"] * 50 == await asyncio.gather(*(anext(reader) for reader in readers))
    for reader in readers:
        await reader.aclose()
    looks = source.looks
    await asyncio.sleep(0.02)
    assert looks == source.looks


async def test_what_has_not_changed_is_not_sent_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SILENCE", 0.02)
    reader = Hub().follow("page", source.make, trouble)

    assert ["one", None] == [await anext(reader), await anext(reader)]
    assert source.looks > 1
    await reader.aclose()


async def test_an_outage_is_told_once_and_what_comes_after_it_too(source: Source) -> None:
    reader = Hub().follow("page", source.make, trouble)
    assert "one" == await anext(reader)

    source.page = BackendError("gone")
    assert "away: gone" == await anext(reader)
    source.page = "one"
    assert "one" == await anext(reader)
    await reader.aclose()


async def test_a_look_that_fails_by_a_fault_of_ours_is_logged_once_and_not_the_last(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looked then saw what was, for as long as the page was open, and nobody was told."""
    reader = Hub().follow("page", source.make, trouble)
    assert "one" == await anext(reader)

    source.page = ZeroDivisionError("a moment that nobody thought of")
    await source.again()
    await source.again()
    source.page = "two"
    assert "two" == await anext(reader)
    await reader.aclose()

    assert ["a page of the dashboard cannot be made"] == [each.message for each in caplog.records]


async def test_a_slow_reader_gets_the_newest_and_not_all(source: Source) -> None:
    hub = Hub()
    slow = hub.follow("page", source.make, trouble)
    assert "one" == await anext(slow)
    for number in range(10):
        source.page = str(number)
        await source.again()

    assert {"8", "9"} == {await anext(slow), await anext(slow)}
    await slow.aclose()


async def test_a_late_reader_sees_the_page_at_once(source: Source) -> None:
    hub = Hub()
    first = hub.follow("page", source.make, trouble)
    await anext(first)
    late = hub.follow("page", source.make, trouble)

    assert "one" == await anext(late)
    await first.aclose()
    await late.aclose()


async def test_more_pages_than_can_be_followed_are_not(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_PAGES", 1)
    hub = Hub()
    first = hub.follow("a", source.make, trouble)
    await anext(first)

    with pytest.raises(TooManyPages):
        await anext(hub.follow("b", source.make, trouble))
    await first.aclose()


async def test_a_connection_ends_so_that_its_reader_is_asked_again_who_it_is(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LONGEST", 0)

    assert [] == [page async for page in Hub().follow("a", source.make, trouble)]
