"""Finds prose that is not written here: `python -m tools.english`.

Only rules that a program can check without guessing. What is left to people is in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WORDS = {
    "simply": "leave it out",
    "easily": "leave it out",
    "obviously": "leave it out",
    "basically": "leave it out",
    "of course": "leave it out",
    "seamless": "say what happens",
    "seamlessly": "say what happens",
    "leverage": "use",
    "utilize": "use",
    "in order to": "to",
    "for ever": "forever",
    "is just": "is",
    "are just": "are",
    "e.g.": "such as",
    "i.e.": "that is",
    "etc.": "name them",
}
"""What is not written anywhere, and what to do instead."""
TERMS = {
    "visit": "reconcile, reconciliation",
    "visits": "reconciles, reconciliations",
    "visited": "reconciled",
    "as wanted": "as desired",
    "the wanted build": "the desired build",
    "the wanted number": "the desired number",
}
"""Names of the code for which users of Kubernetes have a word of their own, in what they read."""
OPENINGS = re.compile(
    r"(Of|As|Its?|They|Them|Those|That|(The )?[Ss]ame|Also|Likewise|Ditto|And|But)\b"
)
"""How no docstring begins, since it would need its neighbor to be understood."""
OWN = ("tools/english.py", "tests/unit/test_english.py")
APPLIED = "/migrations/"
"""Migrations stay as they were applied."""
PAGES = re.compile(r"(docs/(?!decisions)|charts/|manifests/|README\.md).*")
"""What users read."""
OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FOLDERS = (
    *("benchmarks", "charts", "compose", "docs", "examples"),
    *("manifests", "operator", "tests", "tools", "worker"),
)
KINDS = frozenset({".md", ".py", ".sql", ".yaml"})
DOCUMENTED = ("worker/", "operator/", "tools/", "examples/", "benchmarks/")


class Finding(NamedTuple):
    """A place in the repository, what stands there, and what to write instead."""

    path: str
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}; {self.instead}"


def findings(path: str, text: str) -> Iterator[Finding]:
    """Everything in a file of the repository that is not to be written there."""
    yield from _words(path, text, WORDS)
    if PAGES.fullmatch(path):
        yield from _words(path, text, TERMS)
    if path.endswith(".py") and path.startswith(DOCUMENTED):
        yield from _openings(path, text)


def prose() -> Iterator[tuple[str, str]]:
    """The files with prose, by path, and their text."""
    found = set(ROOT.glob("*.md"))
    found |= {each for top in FOLDERS for each in (ROOT / top).rglob("*") if each.suffix in KINDS}
    for path in sorted(found):
        name = path.relative_to(ROOT).as_posix()
        if name not in OWN and APPLIED not in name:
            yield name, path.read_text()


def _words(path: str, text: str, words: dict[str, str]) -> Iterator[Finding]:
    pattern = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words)
    for found in re.finditer(rf"(?<![\w.])({pattern})(?!\w)", text, re.IGNORECASE):
        word = " ".join(found[1].lower().split())
        yield Finding(path, text[: found.start()].count("\n") + 1, word, words[word])


def _openings(path: str, text: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        body = node.body if isinstance(node, OWNERS) else []
        for line in body:
            if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                told = line.value.value
                if isinstance(told, str) and (found := OPENINGS.match(told.strip())):
                    instead = "begin with the noun, or with what is done"
                    yield Finding(path, line.lineno, found[0], instead)


def main() -> None:
    """Print the findings; exit code 1 if there are any."""
    found = [str(each) for path, text in prose() for each in findings(path, text)]
    print("\n".join(found) or "nothing to edit")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
