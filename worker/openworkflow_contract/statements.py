"""Loads the named statements of `sql/*.sql` of some packages: every statement is in such a file.

A block may include another by its name in braces, and use the macros below in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

SHARED = "openworkflow_contract"
"""The package whose statements both sides send."""

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!:):(\w+)")
_INCLUDE = re.compile(r"\{(\w+)(?: ([\w.']+))?\}")
_MACRO_LEFT = re.compile(r"\{\w+ [^}]*\}")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)

MACROS = {
    # A time that Python's datetime can hold in any time zone, and the nearest one to any other: a
    # driver that cannot decode one value of an answer gives none of it.
    "instant": "case when {0} < '0001-01-02Z'::timestamptz then '0001-01-02Z'::timestamptz "
    "when {0} > '9999-12-30Z'::timestamptz then '9999-12-30Z'::timestamptz else {0} end",
    # JSON as bytes of UTF-8. A database without an encoding does not know what its texts hold, and
    # PostgreSQL refuses an answer with one that is not what the client asked for.
    "bytes": "convert_to({0}::text, case getdatabaseencoding() "
    "when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end)",
    # How much earlier than it was a run of this priority counts as due; NULL for none.
    "head_start": "make_interval(hours => coalesce({0}, 0)::int)",
    # Whether a step's context says so; whatever else it may hold, this does not fail.
    "mark": "coalesce(context @> '{{\"{0}\": true}}', false)",
    # How long ago a time was, in seconds; 0 if there is none. Ages beyond a century are one, since
    # PostgreSQL has times that no interval reaches.
    "age": "case when {0} is null then 0 "
    "else extract(epoch from now() - greatest({0}, now() - interval '100 years')) end::float8",
}


def read(*packages: str) -> Mapping[str, str]:
    """Every block of the packages as it is written."""
    found: dict[str, str] = {}
    for package in packages:
        for file in sorted(_files(package), key=lambda file: file.name):
            _, *blocks = _NAME.split(file.read_text("utf-8"))
            for name, text in zip(blocks[::2], blocks[1::2], strict=True):
                if name in found:
                    raise ValueError(f"two statements are named {name}")
                found[name] = text.strip().removesuffix(";")
    return found


def expand(blocks: Mapping[str, str], schema: str) -> Mapping[str, str]:
    """Every statement by its name, for the tables in `schema`."""
    place = quoted(schema)
    return MappingProxyType(
        {name: _expanded(name, blocks).replace("{schema}", place) for name in blocks}
    )


def numbered(sql: str, parameters: Sequence[str]) -> str:
    """The statement with its `:name` parameters as `$1` and so on, in the order given."""
    number = {name: f"${place}" for place, name in enumerate(parameters, 1)}
    return _PARAMETER.sub(lambda match: number[match[1]], sql)


def quoted(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def _expanded(name: str, blocks: Mapping[str, str]) -> str:
    def included(match: re.Match[str]) -> str:
        word, argument = match[1], match[2]
        if argument is not None:
            return MACROS[word].format(argument)
        if word in blocks:
            return _COMMENT.sub("", _expanded(word, blocks))
        return match[0]

    text = _INCLUDE.sub(included, blocks[name])
    if left := _MACRO_LEFT.search(text):
        raise ValueError(f"statement {name!r}: {left[0]} is no macro of one word")
    return text


def _files(package: str) -> list[Traversable]:
    folder = resources.files(package) / "sql"
    return [file for file in folder.iterdir() if file.name.endswith(".sql")]
