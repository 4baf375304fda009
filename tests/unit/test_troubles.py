"""What goes wrong again and again is said once for each reason, and counted."""

from __future__ import annotations

import logging

import pytest

from openworkflow.telemetry.troubles import MOST_REASONS, Troubles

logger = logging.getLogger("openworkflow.test")


@pytest.fixture
def troubles(caplog: pytest.LogCaptureFixture) -> Troubles:
    caplog.set_level(logging.INFO)
    return Troubles(logger, "could not look")


def test_a_reason_is_said_once_and_then_at_each_power_of_ten(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(101):
        troubles.failed("refused")

    assert [
        "could not look: refused",
        "could not look (10 times in a row): refused",
        "could not look (100 times in a row): refused",
    ] == caplog.messages


def test_another_reason_is_said_too(troubles: Troubles, caplog: pytest.LogCaptureFixture) -> None:
    for reason in ("refused", "starting up", "refused", "starting up"):
        troubles.failed(reason)

    assert [
        "could not look: refused",
        "could not look (2 times in a row): starting up",
    ] == caplog.messages


def test_that_it_is_over_is_said_once_with_how_often_and_then_all_begins_anew(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    troubles.succeeded()
    troubles.failed("refused")
    troubles.failed("refused")
    troubles.succeeded()
    troubles.succeeded()
    troubles.failed("refused")

    assert [
        "could not look: refused",
        "it is over, after it went wrong 2 times: could not look",
        "could not look: refused",
    ] == caplog.messages


def test_reasons_that_are_never_the_same_do_not_fill_the_log(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(99):
        troubles.failed(f"refused {number}")

    assert MOST_REASONS == len(caplog.messages)


def test_an_error_without_words_is_said_by_its_name(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    troubles.failed(TimeoutError())

    assert ["could not look: TimeoutError()"] == caplog.messages
