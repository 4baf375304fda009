"""`module:attribute`, a module, or a file: what a command is to serve or run."""

import asyncio
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.registry import collect
from openworkflow.core.workflow import Workflow

_AT_IMPORT = (
    'what starts the program belongs under `if __name__ == "__main__":`, since a worker imports it'
)
_ASYNCIO = Path(asyncio.__file__).parent


def load_workflows(target: str) -> list[Workflow[Any, Any]]:
    """The workflows of `module`, `module:attribute` or `path/to/file.py`.

    The current folder is importable. Raises ConfigurationError with the place of the mistake.
    """
    name, _, attribute = target.partition(":")
    module = load_module(name)
    if not attribute:
        found = collect(module)
        if not found:
            raise ConfigurationError(
                f"{name} holds no workflow; decorate a function of it with @workflow"
            )
        return found
    value: Any = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not isinstance(value, Workflow):
        known = ", ".join(w.fn.__name__ for w in collect(module)) or "none"
        raise ConfigurationError(f"{target} is not a workflow; the workflows of {name}: {known}")
    return [value]


def is_module(name: str) -> bool:
    """Whether a module of this name is to be found from the current folder."""
    _make_importable()
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:  # no such package; or it cannot be imported, which is told where it has to be
        return False


def _make_importable() -> None:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def load_module(name: str) -> ModuleType:
    """The module of this name, or of this file. Raises ConfigurationError."""
    _make_importable()
    try:
        if name.endswith(".py"):
            return _load_file(Path(name))
        _check_module_name(name)
        return importlib.import_module(name)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"there is no module {name!r} here; run the command in the folder that holds it, "
                "or give a file: path/to/file.py"
            ) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.import_module(path.stem)
    found = getattr(module, "__file__", None)
    if found is None or not path.samefile(found):
        raise ConfigurationError(
            f"{path} cannot be imported, because another module is called {path.stem!r} "
            f"({found or 'built in'}); rename the file"
        )
    return module


def _check_module_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name:
        raise ConfigurationError(
            f"{name!r} is no module; give one as in `import shop.workflows`, or a file: "
            "path/to/file.py"
        )


def _broken(name: str, error: BaseException) -> ConfigurationError:
    frames, hint = list(traceback.extract_tb(error.__traceback__)), ""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        # The module itself does what a program does that is started.
        if runs := [n for n, frame in enumerate(frames) if _is_of_asyncio(frame)]:
            frames = frames[: runs[0]]
        if runs or isinstance(error, SystemExit):
            hint = f"; {_AT_IMPORT}"
        where = f"{frames[-1].filename}:{frames[-1].lineno}"
    return ConfigurationError(
        f"cannot import {name}: {type(error).__name__}: {error} ({where}){hint}"
    )


def _is_of_asyncio(frame: traceback.FrameSummary) -> bool:
    return frame.name in ("run", "run_until_complete") and Path(frame.filename).parent == _ASYNCIO
