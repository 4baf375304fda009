"""Whether PostgreSQL can read what a row says, if nothing is stored.

A value that is refused when it is stored need not be at fault: a trigger, an expression index or a
generated column fails in the same words, and a server that assigns no more transaction ids in those
of a value that is too large.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from openworkflow.backend import flush as flushes
from openworkflow.backend.records import Flush, Write
from openworkflow.core.errors import BackendError, Fault
from openworkflow_contract.statements import numbered

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]


async def reads(fetch: Fetch, queries: Mapping[str, str], row: Write) -> bool:
    """Whether it can; raises BackendError, of any fault but the value's, if that is not known."""
    kind = type(row)
    part = flushes.PARTS[kind]
    if (block := flushes.GROUPS[part.group].read) is None:
        return True
    names = flushes.COLUMNS[kind]
    sql = numbered(queries[block].replace("{rows}", queries[part.source]), names)
    flush = Flush("", timedelta(), {kind: [row]})
    values = flushes.values(flush, flushes.shape_of(flush))
    try:
        await fetch(sql, [values[name] for name in names])
    except BackendError as error:
        if error.fault is not Fault.VALUE:
            raise
        return False
    return True
