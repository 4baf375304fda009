"""The English of the repository keeps the rules that a program can check."""

from __future__ import annotations

import pytest

from tools.english import findings, prose


def test_nothing_is_written_that_is_not_written_here() -> None:
    assert [] == [str(each) for path, text in prose() for each in findings(path, text)]


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("docs/a.md", "It is simply there.", "simply"),
        ("docs/a.md", "It waits for\never.", "for ever"),
        ("docs/decisions.md", "Of course it does.", "of course"),
        ("worker/a.py", 'raise ValueError("a duration, e.g. 1m")', "e.g."),
        ("worker/a.py", "# Easily done.", "easily"),
        ("docs/operator.md", "At each visit of a resource.", "visit"),
        ("manifests/crd.yaml", "description: The wanted build.", "the wanted build"),
        ("worker/a.py", '"""Of the database."""', "Of"),
        ("worker/a.py", 'A = 1\n"""The same for another."""', "The same"),
        ("tools/a.py", 'def f():\n    """Its name."""', "Its"),
        ("operator/a.py", 'class A:\n    b: int\n    """As that of B."""', "As"),
    ],
)
def test_a_rule_finds_what_breaks_it(path: str, text: str, found: str) -> None:
    assert [found] == [each.found for each in findings(path, text)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/a.md", "It waits for every run, and justly so."),
        ("docs/decisions.md", "A visit of a resource; the wanted build."),
        ("operator/a.py", "def visit(): ..."),
        ("worker/a.py", 'def f():\n    """Offer it."""'),
        ("tests/a.py", '"""It was sent twice."""'),
    ],
)
def test_what_is_fine_is_left(path: str, text: str) -> None:
    assert [] == list(findings(path, text))
