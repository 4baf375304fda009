"""Python's garbage collector, told to look less often while a worker runs."""

import contextlib
import gc
from collections.abc import Iterator

DEFAULT_COLLECTOR_THRESHOLD = 2000
"""Python 3.13's; older ones have less."""
COLLECTOR_THRESHOLD = 200_000
"""Allocations between two collections."""


@contextlib.contextmanager
def patient_collector() -> Iterator[None]:
    """Let the garbage collector look less often, unless somebody has tuned it already.

    A thousand runs in progress are some fifty thousand objects, all alive; with Python's defaults
    the collector walks them again and again, which took half of a busy worker's time.
    """
    before = gc.get_threshold()
    if before[0] <= DEFAULT_COLLECTOR_THRESHOLD:
        gc.set_threshold(COLLECTOR_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
