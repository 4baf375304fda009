"""How times, lengths, numbers and values are written on a page. Pure."""

import json
import re
from datetime import MAXYEAR, UTC, datetime
from typing import Any
from urllib.parse import quote

from openworkflow.core.envelope import described
from openworkflow.core.printable import printable

SHOWN = 20_000
"""Characters of a value on a page."""
_DIVIDES = re.compile(r"[/%\x00-\x1f]|\A\.\.?\Z")
_UNITS = ((86400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "min"), (60.0, "min", 1.0, "s"))


def length(seconds: float | None) -> str:
    """A length of time in the unit that suits it: `40 ms`, `1.2 s`, `3 min 4 s`, `7 d`."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    for unit, name, part, part_name in _UNITS:
        if seconds >= unit - part / 2:
            parts = round(seconds / part)
            per = round(unit / part)
            whole, rest = divmod(parts, per)
            return f"{whole:,} {name}" + (f" {rest} {part_name}" if rest and whole < 100 else "")
    return f"{seconds:.0f} s"


def between(start: datetime | None, end: datetime | None) -> str:
    """The length of time between two moments; nothing without one of them."""
    if start is None or end is None or MAXYEAR in (start.year, end.year):
        return ""
    return length((end - start).total_seconds())


def moment(at: datetime | None) -> str:
    """A moment in UTC, to the second."""
    if at is None:
        return ""
    return "never" if at.year == MAXYEAR else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def number(count: float, most: int | None = None) -> str:
    """A number with its thousands apart; one that was counted no further ends with a plus."""
    return f"{count:,.0f}" + ("+" if most is not None and count >= most else "")


def segment(name: str) -> str:
    """A name as one part of a path, to be read by `unquote` once more than others.

    Servers make "/" of "%2F", and browsers leave "." and ".." out, however they are written.
    """
    return quote(
        _DIVIDES.sub(lambda found: "".join(map("%{:02X}".format, found[0].encode())), name), ""
    )


def value(given: Any) -> str:
    """A JSON value over lines, cut where it is too long to read; what it is, if it is encoded."""
    if (told := described(given)) is not None:
        return told
    if isinstance(given, str) and len(given) > SHOWN:
        given = given[:SHOWN]  # what is cut is cut before it is escaped
    text = printable(json.dumps(given, ensure_ascii=False, indent=2), lines=True)
    return cut(text)


def cut(text: str, most: int = SHOWN) -> str:
    """A text, no longer than this, that says how much of it is left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n… {len(text) - most:,} more characters"


def plain(text: Any) -> str:
    """A text of others with what cannot be seen escaped, over lines."""
    return cut(printable(str(text), lines=True))


def short(text: Any, most: int = 120) -> str:
    """A text of others on one line, cut, with what cannot be seen escaped."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
