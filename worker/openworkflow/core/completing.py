"""What may come next in a filter that somebody types: words of its last term. Pure.

Suggestions are whole filters, the typed text with its last term completed, since that is what a
browser's list of suggestions, and a shell, put in the place of what was typed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from openworkflow.core.filters import FIELDS, Kind, quoted
from openworkflow.core.workflow_run import RunStatus

MOST = 12
"""Suggestions at a time: more is nothing that anybody reads."""
_SIGNS = {Kind.TIME: ">"}
"""What follows a field, where it is not a colon."""
_AGES = ("15m", "1h", "1d", "7d")
_LAST = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")*$', re.DOTALL)
_TERM = re.compile(r'(?P<field>[^\s:~<>"]+)[:~<>](?:.*,)?(?P<value>.*)', re.DOTALL)
"""A term whose field is typed already; of several values the last."""


def completions(text: str, seen: Mapping[str, Iterable[str]]) -> list[str]:
    """Filters that `text` may be about to become, at most MOST, the likeliest first.

    `seen` has values that runs have by their fields, such as "workflow" and "tag.customer"; a field
    that is not of the language itself is suggested because it is there.
    """
    start = _last_term(text)
    head, term = text[:start], text[start:]
    minus = term[: term.startswith("-")]
    typed = term[len(minus) :]
    valued = _TERM.fullmatch(typed)
    found = _fields(typed, seen) if valued is None else _values(valued, seen)
    whole = dict.fromkeys(f"{head}{minus}{each}" for each in found)
    whole.pop(text, None)  # which is there already
    return list(whole)[:MOST]


def _last_term(text: str) -> int:
    """Where the last term begins: after the last space that is in no quotation marks."""
    found = _LAST.search(text)
    if found is not None and text.count('"') % 2 == 0:
        return found.start()
    return text.rfind(" ", 0, text.rfind('"')) + 1


def _fields(typed: str, seen: Mapping[str, Iterable[str]]) -> Iterator[str]:
    known = dict.fromkeys((*FIELDS, *seen))
    begin = [each for each in known if each.startswith(typed)]
    within = [each for each in known if typed in each and each not in begin]
    for each in (*begin, *within):
        yield f"{each}{_SIGNS.get(FIELDS.get(each, Kind.TEXT), ':')}"


def _values(term: re.Match[str], seen: Mapping[str, Iterable[str]]) -> Iterator[str]:
    value = term["value"].lstrip('"').casefold()
    before = term.string[: term.start("value")]
    for each in _known_values(term["field"], seen):
        if each.casefold().startswith(value):
            yield before + quoted(each)


def _known_values(field: str, seen: Mapping[str, Iterable[str]]) -> Iterable[str]:
    kind = FIELDS.get(field)
    if kind is Kind.STATUS:
        return [status.value for status in RunStatus]
    if kind is Kind.FLAG:
        return ("yes", "no")
    return _AGES if kind is Kind.TIME else seen.get(field, ())
