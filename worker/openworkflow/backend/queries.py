"""Loads the named statements of `sql/*.sql`: every statement on the tables is there."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


_PARAMETER = re.compile(r"(?<!:):(\w+)")


@cache
def load(schema: str) -> MappingProxyType[str, str]:
    """Every statement by its name, for the tables in `schema`."""
    statements: dict[str, str] = {}
    for file in sorted(_files(), key=lambda file: file.name):
        _, *blocks = _NAME.split(file.read_text("utf-8"))
        for name, text in zip(blocks[::2], blocks[1::2], strict=True):
            if name in statements:
                raise ValueError(f"two statements are named {name}")
            statements[name] = text.strip().removesuffix(";").replace("{schema}", quoted(schema))
    return MappingProxyType(statements)


def numbered(sql: str, parameters: Sequence[str]) -> str:
    """The statement with its `:name` parameters as `$1` and so on, in the order given."""
    number = {name: f"${place}" for place, name in enumerate(parameters, 1)}
    return _PARAMETER.sub(lambda match: number[match[1]], sql)


def quoted(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def _files() -> list[Traversable]:
    folder = resources.files("openworkflow.backend") / "sql"
    return [file for file in folder.iterdir() if file.name.endswith(".sql")]
