"""A schedule as a resource declares it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """One entry of `spec.schedules`. Durations are seconds."""

    name: str
    workflow: str
    cron: str
    time_zone: str = "UTC"
    version: str | None = None
    input: str | None = None
    """JSON text, in which 1 is not true; None for no input, and empty for one nested too deeply."""
    overlap: str = "Skip"
    catch_up: str = "Last"
    catch_up_seconds: int = 3600
    jitter_seconds: int = 0

    @classmethod
    def parse(cls, data: Object) -> Self:
        """From an entry as the API server gives it."""
        return cls(
            name=data["name"],
            workflow=data["workflow"],
            cron=data["cron"],
            time_zone=data.get("timeZone", "UTC"),
            version=data.get("version"),
            input=_text(data.get("input")),
            overlap=data.get("overlap", "Skip"),
            catch_up=data.get("catchUp", "Last"),
            catch_up_seconds=data.get("catchUpSeconds", 3600),
            jitter_seconds=data.get("jitterSeconds", 0),
        )


def _text(value: Any) -> str | None:
    try:
        return None if value is None else json.dumps(value)
    except RecursionError:
        return ""
