"""Which files are the application's: a change of theirs makes `openworkflow dev` start anew.

A script beside it, that starts runs, or a test, is none.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType


class Application:
    """What of `folder` is imported, and what that imports by now: whole packages, and modules."""

    def __init__(self, folder: Path, modules: Iterable[ModuleType] | None = None) -> None:
        self._folder = folder.resolve()
        self._files: set[Path] = set()
        self._packages: set[Path] = set()
        for module in list(sys.modules.values()) if modules is None else modules:
            self._take(module)

    def has(self, path: Path) -> bool:
        """Whether a file is part of it, now that it may import more than it did."""
        path = path.resolve()
        if path in self._files or not self._packages.isdisjoint(path.parents):
            return True
        if self._folder not in path.parents:
            return False
        top = self._folder / path.relative_to(self._folder).parts[0]
        if not self._imports(top.stem):
            return False
        (self._files if top == path else self._packages).add(top)
        return True

    def _take(self, module: ModuleType) -> None:
        name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
        if not isinstance(file, str) or not isinstance(name, str):
            return
        path = Path(file).resolve()
        if not self._is_inside(path):
            return
        self._files.add(path)
        package = sys.modules.get(name.partition(".")[0])
        if package is not module or hasattr(module, "__path__"):
            folders = map(Path, getattr(package, "__path__", ()))
            self._packages.update(each for each in map(Path.resolve, folders))

    def _is_inside(self, path: Path) -> bool:
        """In the folder, and not in an environment of Python's that is in there too."""
        return self._folder in path.parents and "site-packages" not in path.parts

    def _imports(self, name: str) -> bool:
        """Whether a module of this name is imported, as far as the text says."""
        pattern = re.compile(rf"^\s*(?:from|import)\s(?:.*,)?\s*{re.escape(name)}\b", re.MULTILINE)
        inside = (path for package in self._packages for path in package.rglob("*.py"))
        return any(pattern.search(_text(path)) for path in (*self._files, *inside))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # deleted, or about to be replaced
        return ""
