"""An error of a flush as one of the backend's, so that what becomes of its rows follows from it."""

import logging

from openworkflow.core.errors import BackendError, Fault

logger = logging.getLogger(__name__)


def refusal_of(error: Exception) -> BackendError:
    """What went wrong with a flush; a mistake of ours costs the row it is about, not the worker."""
    if isinstance(error, BackendError):
        return error
    message = f"cannot be sent to the database: {type(error).__name__}: {error}"
    if isinstance(error, OverflowError):  # the driver found a value that no column holds
        return BackendError(message).of(Fault.VALUE)
    logger.error("a flush failed in this program, not in the database", exc_info=error)
    return BackendError(message).of(Fault.OURS)
