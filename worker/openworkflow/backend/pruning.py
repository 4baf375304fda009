"""Deletes finished runs, batch by batch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from openworkflow.backend.liveness import SCAN_SECONDS


async def pruned(
    fetch: Callable[..., Awaitable[list[Any]]],
    queries: Mapping[str, str],
    wanted: Sequence[Any],
    *,
    batch: int,
    dry_run: bool,
) -> AsyncIterator[int]:
    """How many runs each batch has deleted; with `dry_run` how many it would be in all.

    `wanted` is what the statements begin with: namespace, statuses, and since when they ended.
    """
    if dry_run:
        rows = await fetch(queries["count_prunable_runs"], *wanted, seconds=SCAN_SECONDS)
        yield rows[0]["count"]
        return
    last = UUID(int=0)
    while True:
        # What a lost answer told of is gone, and would not be counted the second time.
        rows = await fetch(
            *(queries["prune_workflow_runs"], *wanted, last, batch),
            safe=False,
            seconds=SCAN_SECONDS,
        )
        if rows:
            yield len(rows)
        if len(rows) < batch:
            return
        last = rows[-1]["id"]
