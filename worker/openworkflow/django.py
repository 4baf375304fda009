"""A backend of Django's tasks: `django.tasks` of Django 6, or the package django-tasks before that.

    TASKS = {"default": {"BACKEND": "openworkflow.django.OpenWorkflowBackend"}}

A task that is enqueued in `transaction.atomic()` is there if and only if that commits. Workers are
those of OpenWorkflow, with the settings of Django in their environment:

    DJANGO_SETTINGS_MODULE=site.settings openworkflow worker openworkflow.django
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import django
from django.apps import apps
from django.db import close_old_connections, connections
from django.utils import timezone
from django.utils.module_loading import import_string

from openworkflow.backend.url import KNOWN_PARAMETERS
from openworkflow.client.blocking.client import SyncOpenWorkflow
from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunDetails
from openworkflow.codecs.payloads import checked_codecs
from openworkflow.codecs.protocol import PayloadCodec
from openworkflow.core.errors import ConfigurationError, RunNotFound
from openworkflow.core.failure import Failure
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.workflow import workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.current import current_step
from openworkflow.engine.step import SyncStep

try:
    from django.tasks import TaskContext, TaskResult, TaskResultStatus
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskError
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ImportError:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started

_STEP = "task"
_STATUSES = {
    RunStatus.PENDING: TaskResultStatus.READY,
    RunStatus.RUNNING: TaskResultStatus.RUNNING,
    RunStatus.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    RunStatus.FAILED: TaskResultStatus.FAILED,
    RunStatus.CANCELED: TaskResultStatus.FAILED,
}
_OPTIONS = {"url", "database", "namespace_id", "schema", "migrate", "max_attempts", "codec"}
_PRIORITIES = 100, 9
"""The highest of Django's tasks, and of runs."""


@dataclass(frozen=True)
class TaskCall:
    """A call of a task, as its run keeps it."""

    task: str
    """The path that it is imported by."""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    backend: str = "default"
    queue: str = "default"
    priority: int = 0
    max_attempts: int = 1


@workflow(name="django-task")
def run_task(input: TaskCall, step: SyncStep) -> Any:
    """Calls the task, as a step of its name."""
    return step.run(_STEP, perform, input, retry=RetryPolicy(max_attempts=input.max_attempts))


def perform(call: TaskCall) -> Any:
    """Call a task with Django set up, and its connections as good as in a request."""
    if not apps.ready:
        django.setup()
    current = current_step()
    assert current is not None
    result = _result_of(call, current.run_id, attempts=current.attempt)
    close_old_connections()
    task_started.send(sender=OpenWorkflowBackend, task_result=result)
    context = [TaskContext(task_result=result)] if result.task.takes_context else []
    status = TaskResultStatus.FAILED
    try:
        returned = result.task.call(*context, *call.args, **call.kwargs)
        status = TaskResultStatus.SUCCESSFUL
    finally:
        object.__setattr__(result, "status", status)
        task_finished.send(sender=OpenWorkflowBackend, task_result=result)
        close_old_connections()
    return returned


class OpenWorkflowBackend(BaseTaskBackend):  # type: ignore[misc]  # Django has no types
    """Enqueues tasks as runs.

    OPTIONS: `url` of the database, by default that of Django's `database` ("default");
    `namespace_id`, `schema` and `migrate` as for BackendPostgres.connect; `max_attempts`, how often
    a task is called that raises (1); `codec` as for OpenWorkflow, and the same as the workers have.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := sorted(set(self.options) - _OPTIONS):
            raise ConfigurationError(
                f"TASKS[{alias!r}] has unknown OPTIONS {', '.join(unknown)}; "
                f"known are {', '.join(sorted(_OPTIONS))}"
            )
        self._database = self.options.get("database", "default")
        self._codecs = checked_codecs(self.options.get("codec"))

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Start a run of the task, in the transaction of `atomic()` if there is one."""
        self.validate_task(task)
        call = TaskCall(
            task.module_path,
            list(args),
            dict(kwargs),
            self.alias,
            task.queue_name,
            task.priority,
            self.options.get("max_attempts", 1),
        )
        connection = connections[self._database]
        run = self._client().run_workflow(
            run_task,
            call,
            available_at=_aware(task.run_after),
            priority=_priority(task.priority),
            tags={"task": task.module_path[:200], "queue": task.queue_name},
            connection=connection if connection.in_atomic_block else None,
        )
        result = _result_of(call, run.id, enqueued_at=timezone.now())
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """What has become of a task. Raises TaskResultDoesNotExist."""
        try:
            found = self._client().get_run(UUID(result_id))
        except (ValueError, RunNotFound) as error:
            raise TaskResultDoesNotExist(result_id) from error
        if found.run.workflow_name != run_task.name:
            raise TaskResultDoesNotExist(result_id)
        return _as_result(found)

    def _client(self) -> SyncOpenWorkflow:
        url = self.options.get("url") or url_of(connections[self._database].settings_dict)
        place = {name: self.options.get(name) for name in ("namespace_id", "schema", "migrate")}
        return _client_of(url, *place.values(), self._codecs)


@cache
def _client_of(
    url: str,
    namespace_id: str | None,
    schema: str | None,
    migrate: bool | None,
    codecs: tuple[PayloadCodec, ...],
) -> SyncOpenWorkflow:
    """One for all threads: Django makes a backend for each."""
    return OpenWorkflow.sync(
        url,
        namespace_id=namespace_id or "default",
        schema=schema or "public",
        migrate=migrate is not False,
        codec=codecs,
    )


def url_of(settings: dict[str, Any]) -> str:
    """The URL of a database of Django's settings."""
    given = {
        "user": settings.get("USER"),
        "password": settings.get("PASSWORD"),
        "host": settings.get("HOST"),
        "port": settings.get("PORT"),
        "dbname": settings.get("NAME"),
    }
    options = settings.get("OPTIONS", {})
    libpq = {name: options[name] for name in KNOWN_PARAMETERS if name in options}
    named = {name: str(each) for name, each in {**libpq, **given}.items() if each not in (None, "")}
    return f"postgresql:///?{urlencode(named, quote_via=quote)}"


def _aware(moment: datetime | None) -> datetime | None:
    return timezone.make_aware(moment) if moment and timezone.is_naive(moment) else moment


def _priority(priority: int) -> int:
    """Django's, from -100 to 100, as a run's; those below the usual are the usual."""
    most, highest = _PRIORITIES
    return -(-max(0, priority) * highest // most)


def _as_result(found: RunDetails) -> Any:
    run = found.run
    tries = [step for step in found.steps if step.step_name == _STEP]
    result = _result_of(
        TaskCall(**run.input),
        run.id,
        status=_STATUSES[run.status],
        enqueued_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.completed_at,
        last_attempted_at=tries[-1].created_at if tries else run.started_at,
        attempts=len(tries) or int(run.started_at is not None),
        errors=[_as_error(step.error) for step in tries if step.error is not None],
    )
    if run.status is RunStatus.PENDING and run.started_at is not None:
        object.__setattr__(result, "status", TaskResultStatus.RUNNING)
    if run.status is RunStatus.SUCCEEDED:
        object.__setattr__(result, "_return_value", run.output)
    return result


def _result_of(call: TaskCall, run_id: UUID, *, attempts: int = 0, **known: Any) -> Any:
    task = import_string(call.task).using(
        backend=call.backend, queue_name=call.queue, priority=call.priority
    )
    times = ("enqueued_at", "started_at", "finished_at", "last_attempted_at")
    usual = {
        "status": TaskResultStatus.RUNNING if attempts else TaskResultStatus.READY,
        "errors": [],
        **dict.fromkeys(times),
    }
    return TaskResult(
        task=task,
        id=str(run_id),
        args=call.args,
        kwargs=call.kwargs,
        backend=call.backend,
        worker_ids=[f"{run_id}:{number}" for number in range(1, attempts + 1)],
        **{**usual, **known},
    )


def _as_error(error: Any) -> Any:
    failure = Failure.from_object(error)
    return TaskError(
        exception_class_path=failure.type.replace(":", "."), traceback=failure.traceback
    )
