"""The key of each step: what its rows are called, and how a replay knows it again. Pure.

A call of a step is told by its name, the branch that asks, and how often that branch has asked for
the name. The key that people see is the name, or the name with an ordinal (`name:1`) where it came
before in the run, as in the TypeScript SDK. Where the key alone does not tell the call, because
another branch uses the name too, the row's context does.
"""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow.core.shown import shown
from openworkflow.core.workflow import Workflow

NAME_LIMIT = 200
"""Characters of a step's name."""
PATCHED = "patched:"
"""Begins the key of a row that says that a run takes a patch's new path; no step is called so."""


class Call(NamedTuple):
    """Which call of a step is meant: number `nth` of that name in the branch with this path."""

    path: str
    name: str
    nth: int

    @property
    def implied_key(self) -> str:
        """The key that the function itself, outside of any branch, gets for this call."""
        return self.name if self.nth == 0 else f"{self.name}:{self.nth}"


class Branch:
    """A line of execution within a run: the function itself, or a task it made.

    A path such as "2.1" (the first task made by the second task of the function) depends on the
    program alone, never on which branch was faster.
    """

    __slots__ = ("_children", "_names", "path")

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._children = 0
        self._names: dict[str, int] | None = None

    def child(self) -> "Branch":
        """The branch of the next task made here."""
        self._children += 1
        return Branch(f"{self.path}.{self._children}" if self.path else str(self._children))

    def count(self, name: str, before: int = 0) -> int:
        """How often `name` was asked for here, `before` included; counts this time."""
        names = self._names = {} if self._names is None else self._names
        seen = names.get(name, before)
        names[name] = seen + 1
        return seen


_NO_CALLS: dict[Call, str] = {}
_NO_KEYS: set[str] = set()


class Keys:
    """The keys of one execution; `recorded` are those that have rows."""

    __slots__ = ("_again", "_calls", "_legacy", "_ordinals", "_owned", "_recorded", "requested")

    def __init__(self, recorded: Container[str] = (), *, legacy: bool = False) -> None:
        self._recorded, self._legacy = recorded, legacy
        # Most runs have no history, and use each name once: they make none of these.
        self._calls, self._owned = _NO_CALLS, _NO_KEYS
        self._ordinals: dict[str, int] | None = None
        self._again: set[str] | None = None
        """Names that came more than once."""
        self.requested: dict[str, Call | None] = {}
        """Each key asked for, and its call; None where the key says it: the name's first call."""

    def own(self, key: str, context: Mapping[str, Any]) -> None:
        """Take in what a row says of the call that it records."""
        call = Call(context["branch"], context.get("name", key), context.get("nth", 0))
        if self._calls is _NO_CALLS:
            self._calls, self._owned = {}, set()
        self._calls[call] = key
        self._owned.add(key)

    def request(self, name: str, branch: Branch) -> str:
        """The key of a call by this branch. Raises ConfigurationError for an unfit name."""
        if not (
            type(name) is str
            and 0 < len(name) <= NAME_LIMIT
            and name.isascii()
            and "\0" not in name
            and not name.startswith(PATCHED)
        ):
            _check(name)
        requested = self.requested
        if not (branch.path or self._calls or name in requested):
            requested[name] = None  # what nearly every call is, and not counted either
            return name
        uncounted = not branch.path and requested.get(name, branch) is None
        call = Call(branch.path, name, branch.count(name, int(uncounted)))
        key = self._calls.get(call)
        if key is None or key in requested:
            key = self._free(call)
        requested[key] = call
        return key

    def context(self, key: str) -> dict[str, Any]:
        """What the row of a requested key has to say of its call; empty where the key says it."""
        call = self.requested[key]
        if call is None or (not call.path and call.implied_key == key):
            return {}
        told: dict[str, Any] = {"branch": call.path, "nth": call.nth}
        return told if call.name == key else told | {"name": call.name}

    def is_repeated(self, key: str) -> bool:
        """Whether the name came more than once, so that another call could be mistaken for this."""
        call = self.requested[key]
        if call is None or key != call.name:
            return call is not None
        return self._again is not None and key in self._again

    def comes_again(self, key: str) -> str | None:
        """The key of the name's first call, at its second; else None."""
        call = self.requested[key]
        if call is None or key == call.name:
            return None
        again = self._again = set() if self._again is None else self._again
        if call.name in again:
            return None
        again.add(call.name)
        return call.name

    def __contains__(self, key: str) -> bool:
        """Whether the function has asked for it."""
        return key in self.requested

    def _free(self, call: Call) -> str:
        """A key for a call of which no row says that it is this one."""
        key = call.implied_key
        if not call.path and key not in self.requested and key not in self._owned:
            return key
        key = call.name
        ordinals = self._ordinals = {} if self._ordinals is None else self._ordinals
        while key in self.requested or key in self._owned or self._is_anothers(key):
            ordinals[call.name] = ordinal = ordinals.get(call.name, 0) + 1
            key = f"{call.name}:{ordinal}"
        return key

    def _is_anothers(self, key: str) -> bool:
        """Rows of older versions say nothing of branches: whoever asks first has them."""
        return key in self._recorded and not self._legacy


def tells_call(context: Mapping[str, Any]) -> bool:
    """Whether what a row says of its call is what `Keys.own` can take in."""
    call = context["branch"], context.get("name", ""), context.get("nth", 0)
    return tuple(map(type, call)) == (str, str, int)


def _check(name: str) -> None:
    if isinstance(name, Workflow):
        raise ConfigurationError(
            "a step's name comes first, and the workflow after it: "
            f'step.run_workflow("name", workflow, input), not {shown(name)}'
        )
    if callable(name):
        raise ConfigurationError(
            f'a step\'s name comes first, and its function after it: step.run("name", function), '
            f"not {shown(name)}"
        )
    storable_text("a step's name", name, NAME_LIMIT)
    if name.startswith(PATCHED):
        raise ConfigurationError(f"a step's name may not begin with {PATCHED!r}, as {shown(name)}")
