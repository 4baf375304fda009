"""What is installed with us: a bill of materials, and what is known to be broken of it.

    make sbom       # dist/sbom-worker.cdx.json and -operator.cdx.json, CycloneDX 1.6
    make audit      # the locked packages against the advisories of PyPI and OSV

An advisory fails. What could not be asked fails nothing, since not every machine reaches the
services, but is said loudly: not audited is not the same as clean. `--strict` fails for that too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ("worker", "operator", "build")
SERVICES: Final = ("pypi", "osv")
_PINNED: Final = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)


@dataclass
class Audit:
    """What is known of packages, each as `name version`."""

    wanted: set[str]
    audited: set[str] = field(default_factory=set)
    advisories: dict[str, set[str]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    """Why something was not audited."""

    @property
    def missing(self) -> set[str]:
        """Packages of which nothing is known."""
        return self.wanted - self.audited

    def add(self, service: str, report: str, words: str = "") -> None:
        """Take in what pip-audit printed, and what it said beside that."""
        try:
            found = json.loads(report)["dependencies"]
        except (ValueError, KeyError, TypeError):
            self.troubles.append(f"{service}: {words.strip().splitlines()[-1:] or 'no answer'}")
            return
        for each in found:
            if "skip_reason" in each:
                self.troubles.append(f"{service}: {each['skip_reason']}")
                continue
            package = f"{_normal(each['name'])} {each['version']}"
            self.audited.add(package)
            for advisory in each["vulns"]:
                fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
                self.advisories.setdefault(package, set()).add(f"{advisory['id']} (fixed: {fixed})")

    def verdict(self, *, strict: bool) -> tuple[int, str]:
        """The exit code, and what to print."""
        lines = [f"{p}: {', '.join(sorted(a))}" for p, a in sorted(self.advisories.items())]
        known = len(self.wanted) - len(self.missing)
        lines.append(f"{known} of {len(self.wanted)} locked packages audited")
        if self.missing:
            names = ", ".join(sorted(self.missing))
            banner = "=" * 20 + " NOT AUDITED " + "=" * 20
            reasons = "\n".join(f"  {each}" for each in dict.fromkeys(self.troubles[:5]))
            lines.append(f"{banner}\n{len(self.missing)} packages: {names}\n{reasons}\n{banner}")
        return int(bool(self.advisories or (strict and self.missing))), "\n".join(lines)


def locked(text: str) -> set[str]:
    """The packages of a lock, as `name version`."""
    return {f"{_normal(name)} {version}" for name, version in _PINNED.findall(text)}


def components(bill: Mapping[str, Any]) -> set[str]:
    """The packages of a bill of materials, as `name version`."""
    return {f"{_normal(each['name'])} {each['version']}" for each in bill["components"]}


def audit(tool: str, *, strict: bool) -> int:
    """Ask each service of what the ones before did not know."""
    texts = {name: (ROOT / "requirements" / f"{name}.txt") for name in LOCKS}
    found = Audit({each for path in texts.values() for each in locked(path.read_text())})
    for service in SERVICES:
        for path in texts.values():
            if locked(path.read_text()) & found.missing:
                found.add(service, *_ask(tool, service, path))
    code, text = found.verdict(strict=strict)
    print(text)
    return code


def _ask(tool: str, service: str, lock: Path) -> tuple[str, str]:
    command = [tool, "--requirement", str(lock), "--disable-pip", "--require-hashes"]
    command += ["--vulnerability-service", service, "--format", "json", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{type(error).__name__}: {error}"
    return done.stdout, done.stderr


def sbom(tool: str) -> int:
    """Write a bill for each image, and see that it names every locked package."""
    if not Path(tool).exists():
        raise SystemExit(f"error: no bill of materials was written: {tool} is not there")
    (ROOT / "dist").mkdir(exist_ok=True)
    for name in ("worker", "operator"):
        lock = ROOT / "requirements" / f"{name}.txt"
        out = ROOT / "dist" / f"sbom-{name}.cdx.json"
        command = [tool, "requirements", str(lock), "--pyproject", str(ROOT / "pyproject.toml")]
        command += ["--output-reproducible", "--spec-version", "1.6", "--of", "JSON"]
        subprocess.run([*command, "--output-file", str(out)], check=True)
        wanted, listed = locked(lock.read_text()), components(json.loads(out.read_text()))
        if wanted != listed:
            raise SystemExit(f"{out.name} and {lock.name} differ: {sorted(wanted ^ listed)}")
        print(f"{out.relative_to(ROOT)}: {len(listed)} packages")
    return 0


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Which of the two, with the tool that does it."""
    parser = argparse.ArgumentParser(prog="tools.supply_chain", description=__doc__)
    parser.add_argument("what", choices=("sbom", "audit"))
    parser.add_argument("tool", help="cyclonedx-py or pip-audit")
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    return (
        sbom(options.tool) if options.what == "sbom" else audit(options.tool, strict=options.strict)
    )


if __name__ == "__main__":
    sys.exit(main())
