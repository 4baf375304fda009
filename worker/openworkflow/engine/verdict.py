"""What it means that the database will not store a row: whose fault it is, and what we call it."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from openworkflow.backend.records import Write
from openworkflow.core.errors import BackendError, Fault

if TYPE_CHECKING:
    from openworkflow.backend.backend import WorkerSession

logger = logging.getLogger(__name__)

HOPELESS = {Fault.VALUE, Fault.OURS}
"""A row that is refused for these would be refused again."""
KINDS = {
    Fault.VALUE: "refused",
    Fault.MOMENT: "collision",
    Fault.SIZE: "size",
    Fault.SERVER: "connection",
    Fault.TABLE: "tables",
    Fault.OURS: "defect",
}
"""What a fault is called in the metrics."""
NOT_THE_VALUE = (
    "the value itself can be read, so look at the triggers, indexes and generated columns that "
    "were added to the table, and at the log of the server"
)


def refusal(error: Exception) -> BackendError:
    """What went wrong with a flush; a mistake of ours costs the row it is about, not the worker."""
    if isinstance(error, BackendError):
        return error
    message = f"cannot be sent to the database: {type(error).__name__}: {error}"
    if isinstance(error, OverflowError):  # the driver found a value that no column holds
        return BackendError(message).of(Fault.VALUE)
    logger.error("a flush failed in this program, not in the database", exc_info=error)
    return BackendError(message).of(Fault.OURS)


async def proven(
    session: "WorkerSession", rows: Iterable[Write], error: BackendError
) -> BackendError:
    """The error that gives a value the fault, as one of the table unless a value has it.

    That is asked of the database: can it read the value, if nothing is stored? What cannot be found
    out fails no run: the row waits, and is judged anew when it is refused again.
    """
    try:
        for row in rows:
            if not await session.reads(row):
                return error
    except Exception as unknown:
        logger.info("could not find out whether a value can be read: %s", unknown)
    judged = BackendError(f"{error}; {NOT_THE_VALUE}").of(Fault.TABLE)
    judged.__cause__ = error
    return judged
