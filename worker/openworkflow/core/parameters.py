"""The parameters of a workflow's function: which is the input, which the step."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from openworkflow.core.errors import ConfigurationError

STEP_TYPES = frozenset({"Step", "SyncStep"})


def parameters_of(fn: Callable[..., Any], name: str) -> tuple[str | None, str | None]:
    """The names of the input's and the step's parameter."""
    data: str | None = None
    step_name: str | None = None
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name == "step" or _annotation_name(parameter.annotation) in STEP_TYPES:
            step_name = parameter.name
        elif data is None and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            data = parameter.name
        else:
            raise ConfigurationError(
                f"workflow {name!r} takes {parameter.name!r}: a workflow takes at most one input "
                "and the step; put several values into a dataclass"
            )
    return data, step_name


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
