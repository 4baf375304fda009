"""What happened outside of the database: one append-only file for each process.

A line is written by one `write` to a file opened with O_APPEND, so it survives SIGKILL of its
process whole. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Call:
    """A step function begins. `seen` has the results that its branch was given before, by key.

    A step begins only after what its branch has seen is durable, so `seen` proves what is recorded.
    """

    at: float
    pid: int
    job: str
    generation: int
    key: str
    token: str
    seen: Mapping[str, str] = field(default_factory=dict)
    raises: bool = False


class Beat(NamedTuple):
    """A heartbeat: when it was sent, and when its answer was there."""

    sent: float
    answered: float


class Ledger:
    """The file of this process."""

    def __init__(self, folder: Path) -> None:
        self._file = _opened(folder / f"{os.getpid()}.jsonl")
        # Apart: a process that has beaten may not have worked yet.
        self._beats = _opened(folder / f"{os.getpid()}.beats.jsonl")
        self._calls = 0

    def begin(
        self, job: str, generation: int, key: str, seen: Mapping[str, str], *, raises: bool = False
    ) -> str:
        """Note that a step function was called; its token, which no other call has."""
        self._calls += 1
        pid = os.getpid()
        token = f"{pid}.{self._calls}"
        call = Call(time.monotonic(), pid, job, generation, key, token, dict(seen), raises)
        os.write(self._file, (json.dumps(asdict(call)) + "\n").encode())
        return token

    def end(self, token: str) -> None:
        """Note that this call is about to return."""
        ended = {"ended": token, "at": time.monotonic()}
        os.write(self._file, (json.dumps(ended) + "\n").encode())

    def beat(self, sent: float) -> None:
        """Note that a heartbeat was answered which was sent at that time."""
        beat = {"beat": sent, "at": time.monotonic(), "pid": os.getpid()}
        os.write(self._beats, (json.dumps(beat) + "\n").encode())


def _opened(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


class Reader:
    """The calls of all processes; what was read before is not read again."""

    def __init__(self, folder: Path) -> None:
        self.ended: dict[str, float] = {}
        """By token: when calls were over that say so."""
        self.beats: dict[int, list[Beat]] = defaultdict(list)
        """By process: its heartbeats that were answered."""
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._calls: list[Call] = []

    def read(self) -> list[Call]:
        """The calls so far, in the order of time."""
        new = [call for file in self._folder.glob("*.jsonl") for call in self._more(file)]
        if new:
            self._calls.extend(new)
            self._calls.sort(key=lambda call: call.at)  # nearly sorted, which costs little
        return self._calls

    def _more(self, file: Path) -> Iterator[Call]:
        with file.open("rb") as opened:
            opened.seek(self._read.get(file, 0))
            whole, _, _ = opened.read().rpartition(b"\n")
        if not whole:
            return
        self._read[file] = self._read.get(file, 0) + len(whole) + 1
        for line in whole.split(b"\n"):
            told: dict[str, Any] = json.loads(line)
            if "ended" in told:
                self.ended[told["ended"]] = told["at"]
                continue
            if "beat" in told:
                self.beats[told["pid"]].append(Beat(told["beat"], told["at"]))
                continue
            # The names of steps and jobs come again and again.
            told["seen"] = {sys.intern(key): token for key, token in told["seen"].items()}
            told |= {name: sys.intern(told[name]) for name in ("job", "key")}
            yield Call(**told)
