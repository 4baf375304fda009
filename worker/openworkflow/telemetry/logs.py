"""Structured logs: one JSON object a line for machines, one readable line for a terminal.

Whatever logs while a run executes, user code included, carries the run's namespace, workflow, id
and attempt. Passwords in database URLs are masked in both formats.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["auto", "json", "human"]

log_context: ContextVar[dict[str, Any]] = ContextVar("openworkflow_log_context")
"""Fields of the run in progress."""

_PASSWORD = re.compile(r"(?i)(postgres(?:ql)?://[^\s:/@]*:)[^\s@]+(@)|(password=)[^\s&'\"]+")


def configure(
    format: LogFormat = "auto", level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Send the root logger to `stream` (stderr); "auto" is human on a terminal, else JSON."""
    target = stream or sys.stderr
    human = format == "human" or (format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def mask(text: str) -> str:
    """`text` without the passwords of database URLs."""
    return _PASSWORD.sub(lambda m: f"{m[1] or m[3]}***{m[2] or ''}", text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with the fields of the run in progress."""
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(record.getMessage()),
            **log_context.get({}),
        }
        if record.exc_info:
            fields["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(fields, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level, message, and the run in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a person reads it."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        context = log_context.get({})
        run = f" [{context['workflow']} {str(context['run_id'])[-12:]}]" if context else ""
        text = f"{time} {record.levelname:<7} {mask(record.getMessage())}{run}"
        if record.exc_info:
            text += "\n" + mask(self.formatException(record.exc_info))
        return text
