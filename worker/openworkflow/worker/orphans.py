"""Cancels children that nobody needs any more; any worker does it for all."""

import asyncio
import contextlib
import logging
import random

from openworkflow.backend.children import Families
from openworkflow.core.errors import BackendError
from openworkflow.telemetry.troubles import Troubles

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 20.0
"""Between two looks where nothing is heard."""
ANSWER_SECONDS = 60.0


async def end_orphans(families: Families, heard: asyncio.Event) -> None:
    """Look for orphans once something is `heard`, and now and then, until canceled."""
    troubles = Troubles(logger, "could not cancel the children of runs that have ended")
    while True:
        heard.clear()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await families.cancel_orphans()
            troubles.succeeded()
        except (BackendError, TimeoutError) as error:
            troubles.failed(error)
        except Exception:
            logger.exception("could not cancel the children of runs that have ended")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPEAT_SECONDS * random.uniform(0.75, 1.0)):
                await heard.wait()
