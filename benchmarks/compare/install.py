"""Environments of the peers: one folder each, made once, kept until a pin changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.peers import Contender

ROOT = Path(__file__).parents[2]
#: Where the environments are, unless BENCH_PEERS names another folder.
DEFAULT_FOLDER = ROOT / ".bench"
DRIVERS = Path(__file__).parent / "drivers"
PATIENCE = 600


class NotInstalled(Exception):
    """A peer cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A peer that is there: how its driver is started, and what its environment holds."""

    contender: Contender
    command: tuple[str, ...]
    working_folder: Path
    versions: tuple[str, ...]


def peers_folder() -> Path:
    """The folder of all environments."""
    return Path(os.environ.get("BENCH_PEERS", DEFAULT_FOLDER))


def install(contender: Contender, folder: Path) -> Installed:
    """Make the environment if it is not there; NotInstalled with what the installer said."""
    if contender.installer != "none" and not is_installed(contender, folder):
        try:
            _make(contender, folder / contender.name)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalled(_reason(error)) from error
    return find_installed(contender, folder)


def is_installed(contender: Contender, folder: Path) -> bool:
    """Whether the environment is there with these pins."""
    marker = _marker(folder / contender.name)
    if contender.installer == "none":
        return True
    return marker.exists() and json.loads(marker.read_text())["pins"] == list(contender.packages)


def find_installed(contender: Contender, folder: Path) -> Installed:
    """How the driver of an installed peer is started."""
    if contender.installer == "none":
        return Installed(contender, _module(sys.executable, contender), ROOT, ())
    own = folder / contender.name
    versions = tuple(json.loads(_marker(own).read_text())["versions"])
    if contender.installer == "npm":
        node = shutil.which("node") or "node"
        return Installed(contender, (node, str(DRIVERS / contender.driver)), own, versions)
    return Installed(contender, _module(str(own / "bin" / "python"), contender), ROOT, versions)


def _module(python: str, contender: Contender) -> tuple[str, ...]:
    return (python, "-m", f"benchmarks.compare.drivers.{contender.driver}")


def _make(contender: Contender, own: Path) -> None:
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    versions = (
        _with_npm(contender, own) if contender.installer == "npm" else _with_pip(contender, own)
    )
    _marker(own).write_text(
        json.dumps({"pins": list(contender.packages), "versions": versions}, indent=2) + "\n"
    )


def _with_pip(contender: Contender, own: Path) -> list[str]:
    _run(_python(contender), "-m", "venv", str(own), folder=own)
    pip = (str(own / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", *contender.packages, folder=own)
    return _run(*pip, "freeze", folder=own).split()


def _python(contender: Contender) -> str:
    """This Python, or a newer one where the peer asks for it; FileNotFoundError if none is here."""
    if sys.version_info >= contender.python:
        return sys.executable
    oldest = contender.python[1]
    names = [f"python3.{minor}" for minor in range(oldest, oldest + 5)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [path for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in (*map(str, found), *filter(None, map(shutil.which, names))):
        if subprocess.run((candidate, "-c", ""), capture_output=True, check=False).returncode == 0:
            return candidate
    raise FileNotFoundError(f"it needs Python 3.{oldest}, and none is in PATH or of pyenv")


def _with_npm(contender: Contender, own: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    (own / "package.json").write_text('{"private": true, "type": "module"}\n')
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--save-exact")
    _run(npm, "install", *quiet, *contender.packages, folder=own)
    lock = json.loads((own / "package-lock.json").read_text())
    return [
        f"{path.removeprefix('node_modules/')}@{package['version']}"
        for path, package in lock["packages"].items()
        if path
    ]


def _run(*command: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        timeout=PATIENCE,
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout


def _reason(error: Exception) -> str:
    """One line: the last that the installer said, else the error's own."""
    said = str(getattr(error, "stderr", None) or "").strip().splitlines()
    return said[-1] if said else str(error)


def _marker(own: Path) -> Path:
    return own / "installed.json"
