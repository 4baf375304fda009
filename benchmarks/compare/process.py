"""The driver of a peer as the measuring process sees it: what it says, line by line."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from benchmarks.compare.install import ROOT, Installed

#: Seconds for anything that a driver does.
PATIENCE = 120


class DriverFailed(Exception):
    """A driver ended, or said nothing for too long; the message has its last words."""


@dataclass(slots=True)
class Driver:
    """A process that was started; `heard` has what it said."""

    process: subprocess.Popen[str]
    errors: IO[str]
    heard: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)
    _kept: dict[str, dict[str, Any]] = field(default_factory=dict)

    def wait_for(self, wanted: str) -> dict[str, Any]:
        """The line that says this, in whatever order lines come; DriverFailed if none does.

        A worker may call its first step before it is ready, or after.
        """
        while wanted not in self._kept:
            try:
                line = self.heard.get(timeout=PATIENCE)
            except queue.Empty:
                raise DriverFailed(self._last_words(f"no {wanted} for {PATIENCE} s")) from None
            if line is None:
                raise DriverFailed(self._last_words(f"it ended before it said {wanted}"))
            self._kept[line["said"]] = line
        return self._kept.pop(wanted)

    def tell(self) -> None:
        """Send the line that it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def listen(self) -> None:
        """Read until it ends; runs in a thread of its own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if (said := parse(line)) is not None:
                self.heard.put(said)
        self.heard.put(None)

    def _last_words(self, what: str) -> str:
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"{what}: {lines[-1] if lines else 'it wrote nothing to its standard error'}"


def parse(line: str) -> dict[str, Any] | None:
    """What a driver says; None for a line that is a library's."""
    if not line.startswith("@{"):
        return None
    said: dict[str, Any] = json.loads(line[1:])
    return said


@contextmanager
def started(peer: Installed, *arguments: str) -> Iterator[Driver]:
    """A driver, until the block ends; one that is still there then is ended."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*peer.command, *arguments],
            cwd=peer.working_folder,
            env=_environment(peer),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        driver = Driver(process, errors)
        listener = threading.Thread(target=driver.listen, daemon=True)
        listener.start()
        try:
            yield driver
            process.wait(timeout=60)
        finally:
            process.kill()
            process.communicate()
            listener.join()


def _environment(peer: Installed) -> dict[str, str]:
    """Ours has the paths of this process; a peer's finds its driver from the folder it is in."""
    if not peer.contender.packages:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": str(ROOT)}
