"""Tasks, by Django's own decorator or that of django-tasks."""

import importlib
from collections.abc import Callable
from typing import Any

from tests.django_site.settings import IN_DJANGO

library = importlib.import_module("django.tasks" if IN_DJANGO else "django_tasks")
task: Callable[..., Callable[..., Any]] = library.task


@task
def add(one: int, other: int = 0) -> int:
    return one + other


@task(priority=50)
async def add_later(one: int) -> int:
    return one + 1


@task(takes_context=True)
def fails_once(context: Any, name: str) -> str:
    if context.attempt == 1:
        raise ValueError(f"{name} is away")
    return f"{name} at attempt {context.attempt}"


@task
def fails(name: str) -> None:
    raise LookupError(name)
