"""Writes the blocking client from the async one: the same methods, signatures and words.

python -m tools.sync_client

Each method awaits the async one in the loop of `client/blocking/line.py`; nothing is done twice.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
CLIENT: Final = ROOT / "worker/openworkflow/client"
SYNC: Final = {
    name: f"Sync{name}"
    for name in ("LimitClient", "OpenWorkflow", "RunControl", "RunFollowing", "RunHandle")
} | {"ScheduleClient": "SyncScheduleClient", "AsyncIterator": "Iterator"}
LEFT_OUT: Final = {
    "new_worker",
    "stop",
    "sync",
    "StopsAtExit",
    "AnswersGuesses",
    "Generic[O]",
}
"""What a program that blocks has no use for, and what `SyncBase` has."""
BASES: Final = {"OpenWorkflow": "SyncBase", "RunHandle": "SyncHandleBase[O]"}
TITLES: Final = {
    "OpenWorkflow": "Starts and follows runs from code that blocks; made by `OpenWorkflow.sync`."
}


class Source(NamedTuple):
    """A module to write, and what the methods of its class are asked of."""

    module: str
    of: str


SOURCES: Final = (
    Source("limits", "ow.limits"),
    Source("schedules", "ow.schedules"),
    Source("following", "ow"),
    Source("control", "ow"),
    Source("handle", "self._of(ow)"),
    Source("client", "ow"),
)


def modules() -> dict[Path, str]:
    """Each module as it should be."""
    return {
        CLIENT / f"blocking/{source.module}.py": _formatted(_module(source)) for source in SOURCES
    }


def _module(source: Source) -> str:
    tree = ast.parse((CLIENT / f"{source.module}.py").read_text())
    (kind,) = (each for each in tree.body if isinstance(each, ast.ClassDef) and each.name in SYNC)
    imports = [each for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom)]
    variables = [
        each
        for each in tree.body
        if isinstance(each, ast.Assign) and "TypeVar" in ast.unparse(each)
    ]
    body = ast.Module([*imports, *_own_imports(source), *variables, _Class(source).made(kind)], [])
    title = f"See client/{source.module}.py; `python -m tools.sync_client` wrote this from it."
    written = ast.unparse(ast.fix_missing_locations(body))
    return f'"""{title}"""\n{written}\n'


def _own_imports(source: Source) -> list[ast.stmt]:
    """All that may be needed; the formatter takes out what is not."""
    found = ["from collections.abc import Iterator"]
    of = "from openworkflow.client.blocking"
    if source.module != "handle":
        found += [f"{of}.handle import SyncRunHandle"]
    if source.module == "client":
        found += [f"{of}.{each.module} import {SYNC[kind]}" for each, kind in _PARTS]
    found += [f"{of}.base import SyncBase, SyncHandleBase, SyncPart, given"]
    return ast.parse("\n".join(found)).body


_PARTS: Final = tuple(
    zip(SOURCES[:4], ("LimitClient", "ScheduleClient", "RunFollowing", "RunControl"), strict=True)
)


class _Class(ast.NodeTransformer):
    def __init__(self, source: Source) -> None:
        self._of, self._kind = source.of, ""

    def made(self, kind: ast.ClassDef) -> ast.ClassDef:
        self._kind = kind.name
        kind.body = [_title(kind), *(made for each in kind.body[1:] if (made := self._made(each)))]
        own = _expression(BASES.get(kind.name, "SyncPart"))
        others = [base for base in kind.bases if ast.unparse(base) not in LEFT_OUT]
        kind.bases = [*map(self._renamed, others), own]
        kind.name = SYNC[kind.name]
        return kind

    def _made(self, node: ast.stmt) -> ast.stmt | None:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        if node.name.startswith("_") or node.name in LEFT_OUT:
            return None
        returns, awaits = node.returns, isinstance(node, ast.AsyncFunctionDef)
        body = node.body
        if not any(ast.unparse(each) == "overload" for each in node.decorator_list):
            body = [node.body[0], ast.Return(self._answer(node, returns, awaits))]
        for each in _arguments(node.args):
            each.annotation = each.annotation and self._renamed(each.annotation)
        renamed = returns and self._renamed(returns)
        made = ast.parse(f"def {node.name}(): ...").body[0]
        assert isinstance(made, ast.FunctionDef)
        made.args, made.body, made.returns = node.args, body, renamed
        made.decorator_list = node.decorator_list
        return made

    def _answer(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, returns: ast.expr | None, awaits: bool
    ) -> ast.expr:
        kind = ast.unparse(returns) if returns else ""
        if kind in SYNC:
            return _expression(f"{SYNC[kind]}(self._line)")
        options = ", options" if node.args.kwarg else ""
        how = "call" if awaits else "each" if kind.startswith("AsyncIterator") else "get"
        asked = (
            f"self._line.{how}(lambda ow: {self._of}.{node.name}({_passed(node.args)}){options})"
        )
        if kind.startswith("RunHandle"):
            return _expression(f"SyncRunHandle(self._line, {asked})")
        if kind.startswith("list[RunHandle"):
            return _expression(f"[SyncRunHandle(self._line, each) for each in {asked}]")
        return _expression(asked)

    def _renamed(self, node: ast.expr) -> ast.expr:
        renamed: ast.expr = self.visit(node)
        return renamed

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(SYNC.get(node.id, node.id))


def _title(kind: ast.ClassDef) -> ast.stmt:
    own = TITLES.get(kind.name)
    return kind.body[0] if own is None else ast.Expr(ast.Constant(own))


def _passed(arguments: ast.arguments) -> str:
    plain = [*arguments.posonlyargs, *arguments.args][1:]
    passed = [f"given({each.arg})" if _is_handle(each) else each.arg for each in plain]
    if arguments.vararg:
        passed.append(f"*{arguments.vararg.arg}")
    passed += [f"{each.arg}={each.arg}" for each in arguments.kwonlyargs]
    if arguments.kwarg:
        passed.append(f"**{arguments.kwarg.arg}")
    return ", ".join(passed)


def _is_handle(argument: ast.arg) -> bool:
    return argument.annotation is not None and "RunHandle" in ast.unparse(argument.annotation)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [each for each in (arguments.vararg, arguments.kwarg) if each]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _formatted(text: str) -> str:
    name = ["--stdin-filename", str(CLIENT / "blocking/written.py")]
    for command in (
        ["check", "--fix", "--quiet", "--select", "F401,F811,I"],
        ["format", "--quiet"],
    ):
        ruff = [sys.executable, "-m", "ruff", *command, *name, "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(r'(?m)^([IO] = TypeVar\("."\))$', r"\1  # noqa: E741", text)


if __name__ == "__main__":
    for path, text in modules().items():
        path.write_text(text)
