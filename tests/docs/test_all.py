"""No block of Python is written into the documentation without a test that executes it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Page

PAGES = [
    str(path.relative_to(ROOT)) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
]
TESTS = [ast.parse(path.read_text()) for path in sorted(Path(__file__).parent.glob("test_*.py"))]


def executed(page: str) -> list[str]:
    """How the tests name the blocks of a page: PAGE.block("...")."""
    return [
        text
        for module in TESTS
        for variable in _variables(module, page)
        for text in _blocks(module, variable)
    ]


def _variables(module: ast.Module, page: str) -> list[str]:
    return [
        target.id
        for node in module.body
        for target in (node.targets if isinstance(node, ast.Assign) else [])
        if isinstance(target, ast.Name) and ast.unparse(node).endswith(f"Page({page!r})")
    ]


def _blocks(module: ast.Module, variable: str) -> list[str]:
    return [
        node.args[0].value
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == f"{variable}.block"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed(page: str) -> None:
    named = executed(page)
    forgotten = [
        f"{page}:{block.line}: {block.text.splitlines()[0]}"
        for block in Page(page).blocks
        if not any(block.has(start) for start in named)
    ]
    assert not forgotten, "no test in tests/docs executes these"
