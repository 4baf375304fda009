"""Progress of a long command, on standard error, where that is a terminal.

A log of CI, or a script that reads standard error, gets none of it.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for the length of a block; what is called with how many are done so far."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not watched()) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def watched() -> bool:
    """Whether somebody looks at standard error."""
    return bool(sys.stderr) and sys.stderr.isatty()
