"""Connections from which nothing is hidden without a word.

Row security shows a role what its policies let it see, and says nothing of the rest. Where nobody
has set namespaces apart (`openworkflow migrate --roles --bind`), it is on by somebody's mistake: a
run whose steps are hidden would seem to have none, and each would be called again. So PostgreSQL is
asked for an error instead, which is waited out as any other that the tables give.
"""

from typing import Any

from openworkflow.backend import liveness
from openworkflow.backend.hosts import dial
from openworkflow.backend.url import Dsn

_SEE = (
    "select set_config('row_security', 'off', {is_local}) "
    "where not exists (select from pg_policy where polname = 'openworkflow_bound')"
)
SEE_IN_SESSION = _SEE.format(is_local=False)
SEE_IN_TRANSACTION = _SEE.format(is_local=True)
"""For poolers, behind which a session is nobody's."""


async def dial_to_see(dsn: Dsn, /, *places: Any, **arguments: Any) -> Any:
    """`dial`, for a session of our own."""
    connection = await dial(dsn, *places, **arguments)
    try:
        await connection.execute(SEE_IN_SESSION, timeout=liveness.ANSWER_SECONDS)
    except BaseException:  # nobody else has it
        connection.terminate()
        raise
    return connection
