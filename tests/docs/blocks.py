"""The Python blocks of the documentation, executed where they stand.

A test names a block by how one of its lines begins, gives it the names that the page takes for
granted, and looks at what it did. A traceback shows the page and its line.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block; `line` is that of its first line in the page."""

    page: str
    line: int
    text: str

    def has(self, start: str) -> bool:
        """Whether a line begins so."""
        return any(line.strip().startswith(start) for line in self.text.splitlines())

    async def run(self, **world: Any) -> dict[str, Any]:
        """Execute it as a module in which `await` may be written; returns the names it has then."""
        names = {"__name__": "documentation", **world}
        code = self._compiled(self.text, self.line, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        answer = eval(code, names)
        if code.co_flags & inspect.CO_COROUTINE:
            await answer
        return names

    def execute(self, names: dict[str, Any] | None = None) -> None:
        """Execute it as a program of its own, in this thread, where it awaits nothing itself."""
        names = {} if names is None else names
        names.setdefault("__name__", "__main__")
        exec(self._compiled(self.text, self.line, 0), names)

    def body(self, head: str, **world: Any) -> Callable[..., Any]:
        """The function with this `head`, such as "async def f(step: Step)", and the block as body.

        It returns the names that it has at its end.
        """
        text = f"{head}:\n{textwrap.indent(self.text, '    ')}\n    return locals()\n"
        names = {"__name__": "documentation", **world}
        exec(self._compiled(text, self.line - 1, 0), names)
        function: Callable[..., Any] = names[re.split(r"[ (]", head.removeprefix("async "))[1]]
        return function

    def _compiled(self, text: str, line: int, flags: int) -> Any:
        padded = "\n" * (line - 1) + text
        return compile(padded, str(ROOT / self.page), "exec", flags=flags, dont_inherit=True)


class Page:
    """A page of the documentation, and its blocks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __repr__(self) -> str:
        return self.path

    @cached_property
    def blocks(self) -> list[Block]:
        """In the order in which they are read."""
        text = (ROOT / self.path).read_text()
        return [
            Block(self.path, text[: found.start(2)].count("\n") + 1, textwrap.dedent(found[2]))
            for found in FENCED.finditer(text)
        ]

    def block(self, start: str) -> Block:
        """The one block in which a line begins so."""
        found = [block for block in self.blocks if block.has(start)]
        assert len(found) == 1, f"{self.path}: {len(found)} blocks have a line {start!r}…"
        return found[0]
