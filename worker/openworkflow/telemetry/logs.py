"""Structured logs: one JSON object a line for machines, one readable line for a terminal.

Whatever logs while a run executes, user code included, carries the run's namespace, workflow, id
and attempt. Passwords of databases are masked in both formats, in tracebacks too.
"""

import json
import logging
import math
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from openworkflow.core.printable import printable
from openworkflow.telemetry.tracing import log_fields

LogFormat = Literal["auto", "json", "human"]

log_context: ContextVar[dict[str, Any]] = ContextVar("openworkflow_log_context")
"""Fields of the run in progress: namespace_id, workflow, run_id and attempt."""
log_step: ContextVar[Any] = ContextVar("openworkflow_log_step", default=None)
"""The operation in progress, within a run, of which the `key` is shown; None in no step. Apart,
since every step sets it, and few log."""

_URL_PASSWORD = re.compile(r"(?i)(postgres(?:ql)?(?:\+\w+)?://[^\s:/@]*:)[^\s\"'<>]{1,2000}@")
"""Up to the last @: a password that holds one itself should have been percent-encoded."""
_PASSWORD = re.compile(
    r"(?i)(password=|['\"]\w*password['\"]\s*:\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&'\",;)]+)"
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(
    format: LogFormat = "auto", level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Send the root logger and warnings to `stream` (stderr); "auto" is human on a terminal."""
    target = stream or sys.stderr
    human = format == "human" or (format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


def told(
    logger: logging.Logger, level: int, message: str, *arguments: object, traceback: str = ""
) -> None:
    """Log with a traceback that is text, where there is no exception any more, in any format.

    Formatters of the standard library print `exc_text` below the message, and so do those here.
    """
    if not logger.isEnabledFor(level):
        return
    file, line, function, _ = logger.findCaller(stacklevel=2)
    record = logger.makeRecord(logger.name, level, file, line, message, arguments, None, function)
    record.exc_text = traceback.rstrip() or None
    logger.handle(record)


def mask(text: str) -> str:
    """`text` without the passwords of database URLs and of `password=...`."""
    return _PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def _context() -> dict[str, Any]:
    step = log_step.get()
    return log_context.get({}) if step is None else {**log_context.get({}), "step": step.key}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, run, span, `extra`, and exc or stack."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with the fields of the run in progress."""
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        fields = {
            **log_fields(),
            **{name: _plain(value) for name, value in (_context() | extra).items()},
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            fields["exc"] = mask(self.formatException(record.exc_info))
        elif record.exc_text:
            fields["exc"] = mask(record.exc_text)
        if record.stack_info:
            fields["stack"] = mask(record.stack_info)
        return json.dumps(fields)


class HumanFormatter(logging.Formatter):
    """Time, level, message, and the run in brackets; a terminal obeys nothing of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a person reads it."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        context = _context()
        names = context.get("workflow"), str(context.get("run_id", ""))[-12:], context.get("step")
        run = " ".join(str(name) for name in names if name)
        text = f"{time} {record.levelname:<7} {_message(record)}" + (f" [{run}]" if run else "")
        if record.exc_info:
            text += "\n" + mask(self.formatException(record.exc_info))
        elif record.exc_text:
            text += "\n" + mask(record.exc_text)
        if record.stack_info:
            text += "\n" + mask(record.stack_info)
        return printable(text, lines=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return mask(record.getMessage())
    except Exception:  # arguments that do not fit: the line matters more than its mistake
        return mask(f"{record.msg} {record.args!r}")


def _plain(value: object) -> object:
    """What JSON holds: finite numbers, booleans, None; anything else as masked text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return mask(str(value))
