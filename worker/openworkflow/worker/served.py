"""Says in the database which workflows this worker serves, so that fleets are scaled for those."""

import asyncio
import logging
import random
from collections.abc import Sequence

from openworkflow.backend.builds import Builds
from openworkflow.core.errors import BackendError
from openworkflow.telemetry.troubles import Troubles

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0
"""What was not said for an hour, while others were, counts as served no more."""
ANSWER_SECONDS = 10.0


async def say_what_is_served(
    builds: Builds, workflows: Sequence[tuple[str, str]], build_id: str | None = None
) -> None:
    """Say it at once, and of which build the worker is, and again, until canceled.

    Nothing else depends on it.
    """
    what = "could not say which workflows are served here"
    troubles = Troubles(logger, what, level=logging.INFO)
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await builds.serve(workflows, build_id)
            troubles.succeeded()
        except (BackendError, TimeoutError) as error:
            troubles.failed(error)
        except Exception:  # whatever it is, the worker outlives it
            logger.exception(what)
        await asyncio.sleep(REPEAT_SECONDS * random.uniform(0.8, 1.0))
