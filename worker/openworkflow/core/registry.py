"""The workflows that a worker serves, and those that a module holds."""

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow


class Registry:
    """The workflows of a worker, by name and version."""

    def __init__(self, workflows: Iterable[Workflow[Any, Any]]) -> None:
        self._workflows: dict[tuple[str, str], Workflow[Any, Any]] = {}
        if not isinstance(workflows, Iterable):
            raise ConfigurationError(
                f"a worker takes a list of workflows, workflows=[...], not {shown(workflows)}"
            )
        for each in workflows:
            if not isinstance(each, Workflow):
                raise ConfigurationError(
                    f"not a workflow: {shown(each)}; decorate it with @workflow"
                )
            if self._workflows.setdefault(each.key, each) is not each:
                version = f" in version {each.version!r}" if each.version else ""
                raise ConfigurationError(
                    f"two workflows are called {each.name!r}{version}; "
                    "give one of them another name or version"
                )

    def keys(self) -> list[tuple[str, str]]:
        """Names and versions, the version "" where there is none."""
        return list(self._workflows)

    def get(self, name: str, version: str | None) -> Workflow[Any, Any]:
        """Raises KeyError for what is not served."""
        return self._workflows[name, version or ""]

    def find(self, name: str, version: str | None) -> Workflow[Any, Any] | None:
        """None for what is not served."""
        return self._workflows.get((name, version or ""))

    def __iter__(self) -> Iterator[Workflow[Any, Any]]:
        return iter(self._workflows.values())


def collect(module: ModuleType) -> list[Workflow[Any, Any]]:
    """The workflows a module holds, each once, in the order of their definition."""
    return list(dict.fromkeys(v for v in vars(module).values() if isinstance(v, Workflow)))
