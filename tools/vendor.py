"""Scripts of others that the dashboard's pages load, brought from npm into the package.

    python -m tools.vendor            # fetch them anew
    python -m tools.vendor --check    # are the files there the ones that were fetched?
    python -m tools.vendor --tests    # what only tests load, into `.tools/`: `make test-programs`

They lie in the wheel, so that a page asks no other host, and with their licences.
An archive is taken by its version and by the hash that npm's registry has for it; `vendor.json`
has the hash of each file that came of it, and a test compares them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools import test_programs
from tools.test_programs import ROOT, Budget, Unreachable

FOR_TESTS: Final = test_programs.HOME / "scripts"
HOME: Final = ROOT / "worker" / "openworkflow" / "web" / "static" / "vendor"
BILL: Final = "vendor.json"
LICENSES: Final = "LICENSES.txt"
SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Vendored:
    """One archive of npm, and which of its files we ship under which names."""

    name: str
    version: str
    integrity: str
    """`sha512-…`, as `npm view NAME@VERSION dist.integrity` prints it."""
    license: str
    files: Mapping[str, str]
    license_file: str = "LICENSE"


PACKAGES: Final = (
    Vendored(
        "htmx.org",
        "4.0.1",
        "sha512-oF7JgXhDW9UXCy/k1ZYFUQgzu/rm19ORWPSPNL91vPluB2PB9+MV55tyQdH/w7o2EAbTYUG5SDW1R60mdkdqGg==",
        "0BSD",
        {"dist/htmx.min.js": "htmx.min.js", "dist/ext/hx-sse.min.js": "hx-sse.min.js"},
    ),
)
TESTS: Final = (
    Vendored(
        "axe-core",
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "MPL-2.0",
        {"axe.min.js": "axe.min.js"},
    ),
)


class Unlike(Exception):
    """What was fetched, or is there, is not what was asked for; the text says how."""


def fetch(package: Vendored, folder: Path, budget: Budget) -> Path:
    """The archive, as npm packs it. Raises Unreachable, and Unlike for another hash."""
    options = ("--loglevel=error", "--fetch-retries=2")
    budget.run("npm", "pack", *options, f"{package.name}@{package.version}", cwd=folder)
    archive = next(folder.glob("*.tgz"))
    found = integrity_of(archive.read_bytes())
    if found != package.integrity:
        raise Unlike(f"{package.name} {package.version} is {found}, not {package.integrity}")
    return archive


def integrity_of(content: bytes) -> str:
    """Digest of a file, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def unpack(package: Vendored, archive: Path, home: Path) -> tuple[list[dict[str, str]], str]:
    """Write its files; what the bill says of each, and its licence."""
    lines = []
    with tarfile.open(archive) as packed:
        for source, target in package.files.items():
            content = _member(packed, source)
            (home / target).write_bytes(content)
            lines.append(_line(package, source, target, content))
        words = _member(packed, package.license_file).decode()
    title = f"{', '.join(package.files.values())}: {package.name} {package.version}"
    return lines, f"{title} ({package.license})\n\n{words.strip()}\n"


def troubles(home: Path, packages: Sequence[Vendored] = PACKAGES) -> list[str]:
    """How the folder differs from its bill, and the bill from what is asked for above."""
    try:
        bill = json.loads((home / BILL).read_text())
    except (OSError, ValueError) as error:
        return [f"{BILL}: {error}"]
    found = [each for line in bill for each in _unlike(home, line)]
    asked = {(p.name, p.version, source) for p in packages for source in p.files}
    billed = {(line["package"], line["version"], line["source"]) for line in bill}
    found += [f"{BILL} lacks {' '.join(each)}" for each in sorted(asked - billed)]
    found += [f"nobody asks for {' '.join(each)}" for each in sorted(billed - asked)]
    known = {BILL, LICENSES, *(line["file"] for line in bill)}
    found += [f"{p.name} is not in {BILL}" for p in sorted(home.iterdir()) if p.name not in known]
    if not (home / LICENSES).is_file():
        found.append(f"{LICENSES} is missing")
    return found


def bring(home: Path, packages: Sequence[Vendored] = PACKAGES) -> None:
    """Fetch every package into the folder. Raises Unreachable and Unlike."""
    budget = Budget(time.monotonic() + SECONDS)
    home.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, str]] = []
    licenses: list[str] = []
    for package in packages:
        with tempfile.TemporaryDirectory() as folder:
            archive = fetch(package, Path(folder), budget)
            more, words = unpack(package, archive, home)
        lines += more
        licenses.append(words)
    (home / BILL).write_text(json.dumps(lines, indent=2) + "\n")
    (home / LICENSES).write_text("\n----\n\n".join(licenses), encoding="utf-8")


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    member = packed.extractfile(f"package/{name}")
    assert member is not None
    return member.read()


def _line(package: Vendored, source: str, target: str, content: bytes) -> dict[str, str]:
    return {
        "package": package.name,
        "version": package.version,
        "license": package.license,
        "source": source,
        "file": target,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _unlike(home: Path, line: Mapping[str, str]) -> list[str]:
    try:
        content = (home / line["file"]).read_bytes()
    except OSError as error:
        return [f"{line['file']}: {error.strerror}"]
    found = hashlib.sha256(content).hexdigest()
    return [] if found == line["sha256"] else [f"{line['file']} was changed: sha256 {found}"]


def _for_tests() -> int:
    """Fetch what is not there; 0 also when it was not to be had, which is said loudly."""
    missing = {}
    if troubles(FOR_TESTS, TESTS):
        try:
            bring(FOR_TESTS, TESTS)
        except (Unreachable, Unlike, OSError) as error:
            missing = {name: str(error) for each in TESTS for name in each.files.values()}
    print(test_programs.report(missing, FOR_TESTS))
    return 0


def main() -> int:
    """Fetch or check; 1 if it cannot be said that the files are the ones asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fetch nothing")
    parser.add_argument("--tests", action="store_true", help="what only tests load")
    options = parser.parse_args()
    if options.tests:
        return _for_tests()
    try:
        if not options.check:
            bring(HOME)
    except (Unreachable, Unlike) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = troubles(HOME)
    print("\n".join(found) or f"{HOME.relative_to(ROOT)}: as {BILL} says")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
