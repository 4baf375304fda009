"""The shape of the repository that other parts rely on, and the limits of the house style."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

import openworkflow
from openworkflow import core
from openworkflow.cli.main import cli

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "worker").rglob("*.py"), *(ROOT / "operator").rglob("*.py")])
LONGEST_MODULE = 350
LONGEST_FUNCTION = 40


def test_the_folder_operator_never_becomes_a_package_that_hides_the_standard_library() -> None:
    assert [] == list((ROOT / "operator").glob("__init__.py"))


def test_no_test_folder_is_a_package() -> None:
    """A `tests/operator/__init__.py` would replace the standard library's `operator`."""
    assert [] == list((ROOT / "tests").rglob("__init__.py"))
    assert not (ROOT / "tests" / "operator").exists()


def test_the_installed_version_is_the_one_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == importlib.metadata.version("openworkflow-fleet")
    assert project["version"] == openworkflow.__version__


def test_the_public_names_are_few_sorted_and_there() -> None:
    names = openworkflow.__all__

    assert sorted(names) == list(names)
    # Errors apart: users catch each by its name, and docs/errors.md has a section for each.
    errors = [name for name in names if hasattr(core.errors, name)]
    assert len(names) - len(errors) <= 40
    assert [] == [name for name in names if not hasattr(openworkflow, name)]


def test_every_module_fits_its_limit() -> None:
    lengths = {_relative(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {} == {name: length for name, length in lengths.items() if length > LONGEST_MODULE}


def test_every_function_fits_its_limit() -> None:
    lengths = {
        f"{_relative(path)}:{function.name}": _body_lines(function)
        for path in SOURCES
        for function in _functions(path)
    }

    assert {} == {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


def test_no_module_is_a_bucket() -> None:
    buckets = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}

    assert [] == [_relative(path) for path in SOURCES if path.name in buckets]


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the signature to the end, without the docstring: prose is not complexity."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    prose = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - prose


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_summary_of_every_command_fits_a_terminal_of_80_columns() -> None:
    """Half of them were cut off in the middle of a sentence."""
    assert [] == list(_cut_off(cli, []))


def _cut_off(group: click.Group, path: list[str]) -> Iterator[str]:
    widest = max(len(name) for name in group.commands)
    for name, command in group.commands.items():
        if command.get_short_help_str(78 - 6 - widest).endswith("..."):
            yield " ".join([*path, name])
        if isinstance(command, click.Group):
            yield from _cut_off(command, [*path, name])
