"""Answers what people write who know other programs, by what is written here. Pure.

To a type checker a name that there is not stays an error: it does not see what is here.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from openworkflow.core.options import nearest

_STARTED = "a client starts it: run_workflow(workflow, input) of an OpenWorkflow"
_OWN = ("self", "cls")

ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    kind: {name: hint for names, hint in rows.items() for name in names.split()}
    for kind, rows in {
        "Workflow": {
            "aio_run apply apply_async delay enqueue remote run run_no_wait send spawn": _STARTED,
            "start start_workflow trigger": _STARTED,
            "chunks map s si signature starmap": "what comes one after the other are lines of a "
            "workflow, and what is done for each of many is step.map(name, function, items)",
        },
        "OpenWorkflow": {
            "create_workflow_run enqueue execute_workflow invoke run send_task": "it is "
            "run_workflow(workflow, input)",
            "start start_workflow submit trigger": "it is run_workflow(workflow, input)",
            "AsyncResult get_handle get_workflow get_workflow_handle retrieve_workflow": "it is "
            "handle(UUID(id))",
            "list_workflow_runs list_workflows runs": "it is list_runs(where=...)",
            "create_worker serve worker": "it is new_worker(workflows=[...])",
            "aclose close disconnect shutdown": "it is stop()",
            "cancel_workflow revoke terminate": "it is cancel(run_id)",
            "publish push send_event": "it is signal(topic, value)",
        },
        "RunHandle": {
            "aio_result get get_result join wait wait_result": "it is result(timeout=...)",
            "describe failed get_status ready state successful": "it is status(), or run() for "
            "all that is known",
            "run_id task_id uuid workflow_id workflow_run_id": "it is id",
            "abort kill revoke terminate": "it is cancel()",
            "execute_update get_event query stream": "what a run tells is read by progress() and "
            "events()",
            "send": "it is signal(name, value)",
        },
        "Step": {
            "call execute execute_activity execute_local_activity start_activity": "it is "
            'run("name", function, argument)',
            "aio_run execute_child_workflow invoke spawn spawn_workflow": "it is "
            'run_workflow("name", workflow, input)',
            "start_child_workflow": 'it is start_workflow("name", workflow, input)',
            "recv wait_condition wait_for_event wait_signal": 'it is wait_for_signal("name", '
            "type=..., timeout=...)",
            "send send_event": 'it is signal(run_id, "name", value), or signal("topic", value)',
            "all gather parallel": "it is asyncio.gather(*calls)",
            "put_stream write_stream": 'it is emit("topic", value)',
            "query set_event update_state": "it is set_status(value)",
            "upsert_search_attributes": "it is tag(name=text)",
            "sleep_for timer": 'it is sleep("name", "1h")',
            "now random time utcnow uuid4": "what differs from call to call is the result of a "
            'step: run("now", function)',
            "log logger": "use logging, as anywhere",
            "id workflow_id workflow_run_id": "it is run_id",
        },
        "Environment": {
            "advance advance_time fast_forward move tick time_travel travel": 'it is skip("1d")',
            "patch patch_step mock mock_step replace": 'it is stub("step", value)',
            "crash kill": 'it is crash_after("step") or crash_in("step")',
            "execute execute_workflow run_workflow": "it is run(workflow, input)",
            "start_workflow": "it is start(workflow, input)",
            "ow": "it is await client()",
        },
        "Worker": {
            "async_run launch main run run_forever serve": "it is run_until_signal(), or start() "
            "and stop(), or `async with`",
        },
    }.items()
}
"""By class, what other programs call what it has, or what people look for there."""

CALLS: Mapping[str, Mapping[str, str]] = {
    "OpenWorkflow": {
        "run_workflow": "run_workflow(workflow, input); several values go into a dataclass",
        "run_workflows": "run_workflows(workflow, [input, input])",
        "new_worker": "new_worker(workflows=[...])",
        "list_runs": 'list_runs(where="status:failed")',
    },
    "Step": {
        "run": 'step.run("name", function, argument)',
        "sleep": 'step.sleep("name", "1h")',
        "sleep_until": 'step.sleep_until("name", moment)',
        "wait_for_signal": 'step.wait_for_signal("name", type=..., timeout="1h")',
        "map": 'step.map("name", function, items)',
        "run_workflow": 'step.run_workflow("name", workflow, input)',
        "start_workflow": 'step.start_workflow("name", workflow, input)',
        "emit": 'step.emit("topic", value)',
        "set_status": "step.set_status(value)",
        "tag": "step.tag(name=text)",
    },
    "Environment": {
        "run": "await env.run(workflow, input); several values go into a dataclass",
        "start": "await env.start(workflow, input); several values go into a dataclass",
    },
    "BackendPostgres": {"connect": "await BackendPostgres.connect(url, namespace_id=...)"},
}
"""By class, how its methods are called."""

OF_TEMPORAL: Mapping[str, str] = {
    "defn": "a workflow is a function: @workflow above `async def transfer(input: Details, step: "
    "Step)`",
    "run": "a workflow is a function, and @workflow stands above it",
    **dict.fromkeys(("signal", "update"), "a workflow waits: await step.wait_for_signal(name)"),
    "query": "a workflow tells: step.set_status(value), which run.progress() reads",
    **dict.fromkeys(("execute_activity", "start_activity"), CALLS["Step"]["run"]),
    **dict.fromkeys(("execute_child_workflow",), CALLS["Step"]["run_workflow"]),
    "wait_condition": CALLS["Step"]["wait_for_signal"],
    "sleep": CALLS["Step"]["sleep"],
    "continue_as_new": "await step.continue_as_new(input)",
    "patched": "await step.patched(name)",
    **dict.fromkeys(("now", "random", "uuid4", "time"), "the result of a step, for a replay"),
    "logger": "use logging, as anywhere",
    "unsafe": "there is no sandbox: import as anywhere",
}
"""What `workflow` has of Temporal's, and what is written here."""

_QUALIFIED = re.compile(r"^[\w.<>]+\.(?=\w+\(\))")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


class AnswersGuesses:
    """Says what was meant by an attribute or a call that its class has not. See ATTRIBUTES."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, example in _of(cls, CALLS).items():
            method = inspect.getattr_static(cls, name, None)
            function = method.__func__ if isinstance(method, classmethod) else method
            if example == CALLS["Step"]["run"]:
                continue  # what every step of every run calls pays for no answer
            if inspect.isfunction(function) and not hasattr(function, "_answers"):
                made = _answering(function, example)
                setattr(cls, name, made if method is function else classmethod(made))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or hasattr(type(self), name):
                return object.__getattribute__(self, name)  # raises what it raised
            hint = _of(type(self), ATTRIBUTES).get(name)
            if hint is None:
                known = [each for each in dir(type(self)) if not each.startswith("_")]
                near = nearest(name, known)
                hint = near and f"did you mean {near!r}?"
            told = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(f"{told}: {hint}" if hint else told)


class NotHere:
    """An attribute that a class has not, and what was meant by it."""

    def __init__(self, hint: str) -> None:
        self._told = hint

    def __set_name__(self, owner: type, name: str) -> None:
        self._told = f"{owner.__name__!r} has no attribute {name!r}: {self._told}"

    def __get__(self, *_: object) -> Any:
        raise AttributeError(self._told)


class _NotOfTheFunction:
    """An attribute that a function has not: it says what was meant once it is used."""

    def __init__(self, told: str) -> None:
        self._told = told

    def __call__(self, *_: object, **__: object) -> Any:
        raise AttributeError(self._told)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._told)


def answer_temporal(workflow: Callable[..., Any]) -> None:
    """Have `workflow.defn` and its kin say what is written here."""
    for name, hint in OF_TEMPORAL.items():
        told = f"'workflow' has no attribute {name!r}, which is Temporal's: {hint}"
        setattr(workflow, name, _NotOfTheFunction(told))


def _of(cls: type, table: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What the table has of a class, and of those that it is made from; of async and blocking."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        found |= table.get(each.__name__.removeprefix("Sync"), {})
    return found


def _answering(method: Callable[..., Any], example: str) -> Any:
    """The method; of a call that cannot be made it says how it is called."""
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                coroutine = method(*args, **kwargs)
            except TypeError as error:
                raise _told(error, method, example) from None
            return await coroutine

        answering: Any = awaited
    else:

        @wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except TypeError as error:
                if _can_be_made(method, args, kwargs):
                    raise  # it was called, and something in it has failed
                raise _told(error, method, example) from None

        answering = called
    answering._answers = True
    return answering


def _can_be_made(method: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Whether a call fits the method, or the one that it wraps."""
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _told(error: TypeError, method: Callable[..., Any], example: str) -> TypeError:
    """What Python says of a call that cannot be made, and how it is written."""
    text = _QUALIFIED.sub("", str(error))
    if unexpected := _UNEXPECTED.search(text):
        known = [name for name in inspect.signature(method).parameters if name not in _OWN]
        if near := nearest(unexpected[1], known):
            return TypeError(f"{text}; did you mean {near!r}?")
    return TypeError(f"{text}; write {example}")
