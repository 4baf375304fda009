"""The statements of the backend by their names: its own, and those that the operator sends too."""

from collections.abc import Mapping
from functools import cache

from openworkflow_contract import statements


@cache
def load(schema: str) -> Mapping[str, str]:
    """Every statement by its name, for the tables in `schema`."""
    return statements.expand(read(), schema)


@cache
def read() -> Mapping[str, str]:
    """Every block as it is written."""
    return statements.read("openworkflow.backend", statements.SHARED)
