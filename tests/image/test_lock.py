"""What the images install is pinned, hashed, complete and no more than pyproject.toml asks for."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)(?: ; ([^\\]+))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted(name: str) -> list[str]:
    """What the file is locked from."""
    settings = project()["project"]
    extras = settings["optional-dependencies"]
    requirements: dict[str, list[str]] = {
        "build": project()["build-system"]["requires"],
        "worker": [*settings["dependencies"], *extras["dashboard"], *extras["openid"]],
        "operator": [*settings["dependencies"], *extras["operator"]],
    }
    return requirements[name]


def pins(name: str) -> dict[str, str]:
    """Versions by package."""
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    return {m[1]: m[2] for line in lines if (m := PIN.match(line))}


@pytest.mark.parametrize("name", ["build", "worker", "operator"])
def test_every_line_is_a_pin_or_its_hash(name: str) -> None:
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]

    assert [] == [line for line in lines if not (PIN.match(line) or HASH.match(line))]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert not PIN.match(line) or HASH.match(following), f"{line} has no hash"


@pytest.mark.parametrize("name", ["build", "worker", "operator"])
def test_the_lock_is_what_pyproject_asks_for(name: str) -> None:
    locked = pins(name)
    for text in wanted(name):
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name), "0")
        assert requirement.specifier.contains(version), f"{text}: run `make lock`"


@pytest.mark.parametrize("name", ["worker", "operator"])
def test_the_lock_is_closed_and_holds_nothing_else(name: str) -> None:
    """Followed through the metadata of what is installed here, extras included."""
    todo = [Requirement(text) for text in wanted(name)]
    needed: dict[str, set[str]] = {}
    while todo:
        requirement = todo.pop()
        package = canonicalize_name(requirement.name)
        extras = needed.setdefault(package, set())
        if extras >= requirement.extras | {""}:
            continue
        extras |= requirement.extras | {""}
        todo += _requirements_of(package, extras)

    locked = pins(name)
    assert set() == needed.keys() - locked.keys(), "run `make lock`"
    # Packages for other platforms and Pythons are not installed here.
    assert {} == _unconditional(name, set(locked) - needed.keys())


def test_what_both_images_hold_has_one_version() -> None:
    """All that a worker itself needs is in both; the dashboard is in the worker's alone."""
    worker, operator = pins("worker"), pins("operator")
    both = worker.keys() & operator.keys()
    needed = {Requirement(text).name for text in project()["project"]["dependencies"]}

    assert needed <= both
    assert {name: worker[name] for name in both} == {name: operator[name] for name in both}


def test_the_wheel_is_built_by_what_pyproject_names() -> None:
    lines = (ROOT / "requirements/build.in").read_text().splitlines()

    assert wanted("build") == [line for line in lines if not line.startswith("#")]


def _requirements_of(package: str, extras: set[str]) -> list[Requirement]:
    found = [Requirement(r) for r in importlib.metadata.requires(package) or ()]
    return [
        each
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras)
    ]


def _unconditional(name: str, packages: set[str]) -> Mapping[str, str]:
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    matches = [m for line in lines if (m := PIN.match(line))]
    return {m[1]: m[2] for m in matches if m[1] in packages and m[3] is None}
