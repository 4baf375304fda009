"""No block of Python is written into the documentation without a test that executes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Page

PAGES = [
    str(path.relative_to(ROOT)) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
]
TESTS = {path: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
NAMED = re.compile(r'\.block\(\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


def executed(page: str) -> list[str]:
    """How the tests name the blocks of a page."""
    texts = [text for text in TESTS.values() if f'Page("{page}")' in text]
    return [start.replace('\\"', '"') for text in texts for start in NAMED.findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed(page: str) -> None:
    named = executed(page)
    forgotten = [
        f"{page}:{block.line}: {block.text.splitlines()[0]}"
        for block in Page(page).blocks
        if not any(block.has(start) for start in named)
    ]
    assert not forgotten, "no test in tests/docs executes these"
