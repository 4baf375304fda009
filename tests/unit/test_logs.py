"""Log lines: whole, with the run they belong to, and without passwords."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from openworkflow.telemetry.logs import LogFormat, configure, log_context, mask, told

logger = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # so that `force` has none of pytest's to close
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def context() -> Iterator[None]:
    token = log_context.set(
        {"namespace_id": "default", "workflow": "bill", "run_id": "0198-abc", "attempt": 2}
    )
    yield
    log_context.reset(token)


def output(format: LogFormat = "json", level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    configure(format, level, stream)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_json_line_says_when_what_and_where() -> None:
    stream = output()

    logger.info("claimed %d runs", 3)

    line = only(stream)
    assert line.pop("ts").endswith("+00:00")
    assert {"level": "info", "logger": "tests.logs", "message": "claimed 3 runs"} == line


@pytest.mark.usefixtures("context")
def test_a_json_line_carries_the_run_in_progress() -> None:
    stream = output()

    logger.info("hello")

    line = only(stream)
    assert ("default", "bill", "0198-abc", 2) == (
        line["namespace_id"],
        line["workflow"],
        line["run_id"],
        line["attempt"],
    )


def test_a_traceback_stays_on_the_line_of_its_message() -> None:
    stream = output()

    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("broken\n\u2028in two")

    line = only(stream)
    assert "broken\n\u2028in two" == line["message"]
    assert line["exc"].endswith("ValueError: first\nsecond")


def test_extra_fields_are_kept_and_cannot_hide_the_message() -> None:
    stream = output()

    logger.info(
        "paid",
        extra={"amount": 12, "rate": float("nan"), "level": "x", "when": object, "ok": True},
    )

    line = only(stream)
    assert (12, "nan", "info", True) == (line["amount"], line["rate"], line["level"], line["ok"])
    assert "<class 'object'>" == line["when"]


def test_a_stack_is_kept() -> None:
    stream = output()

    logger.info("here", stack_info=True)

    assert "test_a_stack_is_kept" in only(stream)["stack"]


def test_arguments_that_do_not_fit_cost_no_line() -> None:
    stream = output()

    logger.info("%d runs", "many")

    assert "%d runs ('many',)" == only(stream)["message"]


def test_warnings_are_log_lines_too() -> None:
    stream = output()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)

    assert ("warning", "py.warnings") == (only(stream)["level"], only(stream)["logger"])


def test_the_level_is_kept() -> None:
    stream = output(level="WARNING")

    logger.info("no")
    logger.warning("yes")

    assert "yes" == only(stream)["message"]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:secret@db/app",
        "postgres://:secret@db/app",
        "postgresql+asyncpg://me:secret@db/app",
        "POSTGRESQL://me:secret@db",
        "postgresql://me:se/cr:et@secret@db/app",
        "postgresql://db/app?user=me&password=secret&sslmode=require",
        "host=db password=secret dbname=app",
        "host=db password='secret with a \\' secret' dbname=app",
        "PGPASSWORD=secret psql",
        "connect(host='db', password='secret')",
        "{'user': 'me', 'password': 'secret'}",
        '{"user": "me", "password": "secret"}',
    ],
)
def test_passwords_are_masked(text: str) -> None:
    masked = mask(f"could not connect to {text}; next")

    assert "secret" not in masked
    assert "***" in masked
    assert masked.startswith("could not connect to ")
    assert masked.endswith("next")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@db/app",
        "postgresql://db:5432/app",
        "password reset for a@example.com: sent",
        "https://a:b@example.com",
    ],
)
def test_text_without_a_database_password_is_left_alone(text: str) -> None:
    assert text == mask(text)


@pytest.mark.parametrize("format", ["json", "human"])
def test_no_part_of_a_line_shows_a_password(format: LogFormat) -> None:
    stream = output(format)
    url = "postgresql://me:secret@db/app"

    try:
        raise ValueError(url)
    except ValueError:
        logger.exception("for %s", url, extra={"url": url}, stack_info=True)
    logger.info("%d", url)

    assert "secret" not in stream.getvalue()
    assert "postgresql://me:***@db/app" in stream.getvalue()


def test_a_long_line_is_masked_quickly() -> None:
    """No pattern may take quadratic time: logs show what others send."""
    mask("postgres://a:" * 20_000)
    mask("'password': 'x" * 20_000)


@pytest.mark.usefixtures("context")
def test_a_human_line_is_short() -> None:
    stream = output("human")

    logger.warning("hello")

    line = stream.getvalue()
    assert line.endswith(" WARNING hello [bill 0198-abc]\n")
    assert line[2] == line[5] == ":"


def test_a_human_line_works_with_any_part_of_the_context() -> None:
    stream = output("human")
    token = log_context.set({"namespace_id": "default"})

    logger.info("hello")
    log_context.reset(token)

    assert stream.getvalue().endswith(" INFO    hello\n")


def test_auto_is_json_where_nobody_reads_along() -> None:
    stream = output("auto")

    logger.info("hello")

    assert "hello" == only(stream)["message"]


@pytest.mark.parametrize("format", ["json", "human"])
def test_a_traceback_that_is_text_is_below_the_message_and_masked(format: LogFormat) -> None:
    stream = output(format)

    told(logger, logging.INFO, "run %d failed", 5, traceback="Traceback:\n  password=geheim\n")

    assert "run 5 failed" in stream.getvalue()
    assert "password=***" in stream.getvalue()
    assert "geheim" not in stream.getvalue()


def test_a_traceback_that_is_text_is_in_an_application_s_own_format(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        told(logger, logging.INFO, "run failed", traceback="Traceback:\n  line 5")
        told(logger, logging.DEBUG, "not at this level")

    assert "run failed\nTraceback:\n  line 5" in caplog.text
    assert ["test_logs.py"] == [record.filename for record in caplog.records]
