"""A program of a user of Django's tasks; prints what it found as JSON."""

import asyncio
import importlib
import json
import os
from datetime import timedelta
from typing import Any

import django
from django.db import transaction
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_site.settings")
django.setup()

from openworkflow import BackendPostgres, OpenWorkflow  # noqa: E402
from openworkflow.django import run_task  # noqa: E402

tasks: Any = importlib.import_module("tests.django_site.tasks")

NOT_THERE: type[Exception] = importlib.import_module(
    f"{tasks.library.__name__}.exceptions"
).TaskResultDoesNotExist


def main() -> None:
    found: dict[str, Any] = {}
    kept = []
    with transaction.atomic():
        kept.append(tasks.add.enqueue(1, other=2))
        try:
            tasks.add.get_result(kept[0].id)
        except NOT_THERE:
            found["before the commit"] = "not there"
    with transaction.atomic():
        undone = tasks.add.enqueue(1)
        transaction.set_rollback(True)
    try:
        tasks.add.get_result(undone.id)
    except NOT_THERE:
        found["after a rollback"] = "not there"
    kept += [tasks.add_later.enqueue(1), tasks.fails_once.enqueue("ada"), tasks.fails.enqueue("x")]
    later = tasks.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(7)
    found["ready"] = kept[0].status
    asyncio.run(work(kept))
    for each in (*kept, later):
        each.refresh()
    found["status"] = [each.status for each in (*kept, later)]
    found["returned"] = [each.return_value for each in kept[:3]]
    found["attempts"] = [each.attempts for each in (*kept, later)]
    found["errors"] = [error.exception_class_path for each in kept for error in each.errors]
    print(json.dumps(found))


async def work(kept: list[Any]) -> None:
    """Serve the tasks until those are done, and read one on the way."""
    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"], namespace_id="site")
    async with backend, OpenWorkflow(backend).new_worker(workflows=[run_task]):
        result = await tasks.add.aget_result(kept[0].id)
        while not result.is_finished or not all(each.is_finished for each in kept):
            await asyncio.sleep(0.05)
            for each in (result, *kept):
                await each.arefresh()


if __name__ == "__main__":
    main()
