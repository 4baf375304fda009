"""The statements of the operator by their names: its own, and those that the worker sends too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from openworkflow_contract import statements


@lru_cache(maxsize=64)  # tenants name the schemas
def load(schema: str) -> Mapping[str, str]:
    """Every statement by its name, for the tables in `schema`."""
    return statements.expand(read(), schema)


@cache
def read() -> Mapping[str, str]:
    """Every block as it is written."""
    return statements.read("openworkflow_operator.database", statements.SHARED)
