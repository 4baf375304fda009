"""The functions that workflows and steps are made of: what is none, and which parameter is what."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

STEP_TYPES = frozenset({"Step", "SyncStep"})
_DECORATED = "openworkflow.core.workflow"
"""The module of what `@workflow` and `@step` make; it imports this one."""


def check_function(fn: object) -> None:
    """Refuse what cannot be a workflow's function, with what was meant."""
    if isinstance(fn, str):
        raise ConfigurationError(f"a workflow's name is an option: @workflow(name={shown(fn)})")
    if isinstance(fn, staticmethod | classmethod):
        raise ConfigurationError(
            f"workflow {fn.__name__!r} is a method; make it a function of its module"
        )
    if _decorated(fn) == "DurableFunction":
        raise ConfigurationError(
            f"{shown(fn)} is a step already, and no function is both: take @step off it, or let "
            "another function be the workflow, which calls this one"
        )
    if not inspect.isroutine(fn):
        raise ConfigurationError(f"a workflow must be a function, not {shown(fn)}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigurationError(
            f"workflow {fn.__name__!r} yields; a workflow returns its result and awaits its steps"
        )


def check_step(fn: object) -> None:
    """Refuse what cannot be a step's function."""
    if isinstance(fn, str):
        raise ConfigurationError(f"a step's name is an option: @step(name={shown(fn)})")
    if _decorated(fn) == "Workflow":
        raise ConfigurationError(
            f"{shown(fn)} cannot be a step, since it has steps of its own: take @step off it, and "
            "run it as a child, step.run_workflow(name, workflow, input)"
        )
    if isinstance(fn, type) or not (callable(fn) or isinstance(fn, staticmethod | classmethod)):
        raise ConfigurationError(f"a step must be a function, not {shown(fn)}")


def _decorated(fn: object) -> str | None:
    return type(fn).__name__ if type(fn).__module__ == _DECORATED else None


def default_name(fn: Callable[..., Any]) -> str:
    """The function's name, with dashes."""
    name: str = getattr(fn, "__name__", type(fn).__name__)
    if name == "<lambda>":
        raise ConfigurationError("a lambda has no name to be recorded by; give one: name=...")
    return name.replace("_", "-")


def parameters_of(fn: Callable[..., Any], name: str) -> tuple[str | None, str | None]:
    """The names of the input's and the step's parameter."""
    data: str | None = None
    step_name: str | None = None
    _check_first(fn, name)
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name == "step" or _annotation_name(parameter.annotation) in STEP_TYPES:
            step_name = parameter.name
            _check_kind(fn, parameter, name)
        elif data is None and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            data = parameter.name
            _check_default(parameter, name)
        else:
            raise ConfigurationError(
                f"workflow {name!r} takes {parameter.name!r}: a workflow takes at most one input "
                "and the step, which is called `step` or annotated Step; put several values into "
                "a dataclass"
            )
    return data, step_name


def _check_kind(fn: Callable[..., Any], parameter: inspect.Parameter, name: str) -> None:
    """Refuse the step of plain functions in an async one, whose calls it would have to await."""
    if _annotation_name(parameter.annotation) == "SyncStep" and inspect.iscoroutinefunction(fn):
        raise ConfigurationError(
            f"workflow {name!r} is `async def`, and {parameter.name!r} is annotated SyncStep, "
            "which plain functions are given: write Step, and await its calls, or leave out async"
        )


def _check_first(fn: Callable[..., Any], name: str) -> None:
    """Refuse a method, and the step under the name that other libraries give it."""
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name in ("self", "cls"):
            raise ConfigurationError(
                f"workflow {name!r} is a method: a worker calls it by its name, without an object; "
                "make it a function of its module, and pass what it needs as its input"
            )
        unknown = parameter.annotation is parameter.empty
        if parameter.name in ("ctx", "context") and unknown and not _has_step(fn):
            raise ConfigurationError(
                f"workflow {name!r} takes {parameter.name!r}: the step is called `step`, or "
                f"annotated Step; write `step: Step` instead, or annotate {parameter.name!r} if it "
                "is the input"
            )


def _has_step(fn: Callable[..., Any]) -> bool:
    return any(
        each.name == "step" or _annotation_name(each.annotation) in STEP_TYPES
        for each in inspect.signature(fn).parameters.values()
    )


def _check_default(parameter: inspect.Parameter, name: str) -> None:
    """A run without an input has None: another default would change runs that are under way."""
    if parameter.default is not parameter.empty and parameter.default is not None:
        raise ConfigurationError(
            f"workflow {name!r}: {parameter.name!r} has a default, which no run would get; a run "
            "without an input gets None: write `| None = None`, and choose the value in the code"
        )


def takes_in_order(fn: Callable[..., Any], names: tuple[str | None, ...]) -> bool:
    """Whether the parameters of these names can be given by their places."""
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(fn).parameters.values()
    return names == tuple(each.name for each in parameters if each.kind is positional)


def _annotation_name(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.strip("\"'").rpartition(".")[2]


def names_used(fn: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `names` that the annotations of `fn` mention: the rest is not kept alive."""
    texts = [text for text in getattr(fn, "__annotations__", {}).values() if isinstance(text, str)]
    mentioned = {word for text in texts for word in re.findall(r"\w+", text)}
    return {name: names[name] for name in mentioned if name in names}
