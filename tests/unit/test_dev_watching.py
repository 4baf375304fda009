"""What `openworkflow dev` starts anew for, and what is said of a module that starts itself."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from openworkflow.cli.dev import _changes, _watchers
from openworkflow.cli.target import load_workflows
from openworkflow.cli.watching import Application
from openworkflow.core.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [each for each in sys.modules if each.startswith("dev_")]:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_change_counts_where_the_application_is_and_nowhere_else(folder: Path) -> None:
    write(
        folder,
        {
            "dev_flows.py": "import dev_helpers\nfrom dev_shop import orders\n",
            "dev_helpers.py": "",
            "dev_shop/__init__.py": "",
            "dev_shop/orders.py": "",
            "dev_shop/later.py": "",
            "dev_client.py": "import dev_flows\n",
            "tests/test_flows.py": "import dev_flows\n",
            "venv/lib/site-packages/dev_library.py": "",
        },
    )
    importlib.import_module("dev_flows")
    application = Application(folder)

    ours = ("dev_flows.py", "dev_helpers.py", "dev_shop/orders.py", "dev_shop/later.py")
    assert [True] * 4 == [application.has(folder / name) for name in ours]
    others = ("dev_client.py", "tests/test_flows.py", "venv/lib/site-packages/dev_library.py")
    assert [False] * 3 == [application.has(folder / name) for name in others]
    assert not application.has(Path(__file__))


def test_what_the_application_imports_from_now_on_counts_from_now_on(folder: Path) -> None:
    write(folder, {"dev_growing.py": "", "dev_new.py": "", "dev_more/part.py": ""})
    importlib.import_module("dev_growing")
    application = Application(folder)
    assert not application.has(folder / "dev_new.py")

    write(folder, {"dev_growing.py": "def f():\n    import os, dev_new\n"})
    assert application.has(folder / "dev_new.py")
    write(folder, {"dev_new.py": "from dev_more.part import x\n"})
    assert application.has(folder / "dev_more/part.py")


START = """
import asyncio
async def main(): raise LookupError('odd')
main = main()
try:
    asyncio.run(main)
finally:
    main.close()
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [(START, "dev_starts.py:6"), ("import sys\nsys.exit(3)\n", "dev_starts.py:2")],
)
@pytest.mark.parametrize("in_loop", [True, False])
async def test_a_module_that_starts_itself_is_told_where_that_belongs(
    folder: Path, text: str, place: str, in_loop: bool
) -> None:
    write(folder, {"dev_starts.py": text})

    def load() -> Any:
        with pytest.raises(ConfigurationError) as raised:
            load_workflows("dev_starts")
        return str(raised.value)

    said = load() if in_loop else await asyncio.to_thread(load)
    assert place in said
    assert 'if __name__ == "__main__":' in said


def test_a_module_that_raises_by_itself_is_told_as_it_is(folder: Path) -> None:
    write(folder, {"dev_raises.py": "raise RuntimeError('own')\n"})

    with pytest.raises(ConfigurationError, match=r"RuntimeError: own \(.*dev_raises.py:1\)$"):
        load_workflows("dev_raises")


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_watched_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended in silence, and `dev` started no worker anew."""
    asked: dict[str, Any] = {}

    def awatch(folder: Path, **options: Any) -> AsyncIterator[Any]:
        asked.update(options)
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.awatch", awatch)
    _changes(asyncio.Event())
    await asyncio.gather(*_watchers)

    assert "not seen: OS file watch limit reached" in capsys.readouterr().err
    assert asked["ignore_permission_denied"], "a folder of somebody else's is no reason to stop"
