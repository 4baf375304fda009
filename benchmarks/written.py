"""What the commands do with what they measured: say it as it comes, and write it at the end."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESULTS = Path(__file__).parent / "results"


def write(figures: DataclassInstance, text: str, folder: Path, prefix: str = "") -> None:
    """All figures as JSON, and as the markdown that is printed; both named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S}"
    stem.with_suffix(".json").write_text(json.dumps(asdict(figures), indent=2) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)
    say(f"written: {stem}.json and .md")


def plain(options: argparse.Namespace) -> dict[str, object]:
    """The options as they are kept beside the figures."""
    return {name: value for name, value in vars(options).items() if name != "out"}


def say(line: str) -> None:
    """How far the command is, at once."""
    print(line, file=sys.stderr, flush=True)
