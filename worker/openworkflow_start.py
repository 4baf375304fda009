"""Where the commands `openworkflow` and `openworkflow-operator` begin, before anything is imported.

The first process of a container ignores SIGTERM until it handles it. A pod that is deleted while
it still imports and connects would start all the same, work for its whole grace period, and be
killed in the middle of a step.
"""

import os
import signal
from types import FrameType


def worker() -> None:
    """Entry point of `openworkflow`."""
    signal.signal(signal.SIGTERM, _end)
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_python:  # which would show where in the imports it was
        signal.signal(signal.SIGINT, _end)
    from openworkflow.cli.main import main

    if by_python:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def operator() -> int:
    """Entry point of `openworkflow-operator`."""
    signal.signal(signal.SIGTERM, _end)
    from openworkflow_operator.__main__ import main

    return main()


def _end(number: int, frame: FrameType | None) -> None:
    """What the kernel does to any other process; later handlers replace this one."""
    os._exit(128 + number)
