"""`openworkflow init`: a first project that runs."""

from importlib import resources
from pathlib import Path

import click

from openworkflow.cli.answers import answer
from openworkflow.cli.options import json_option
from openworkflow.core.errors import ConfigurationError

FILES = ("workflows.py", "README.md", "requirements.txt")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default=Path())
@json_option
def init(directory: Path, as_json: bool) -> None:
    """Write a first project into DIRECTORY (by default here). Overwrites nothing."""
    there = [name for name in FILES if (directory / name).exists()]
    if there:
        raise ConfigurationError(
            f"{directory.resolve()} already has {', '.join(there)}; give another folder: "
            "openworkflow init my-project"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        template = resources.files("openworkflow.cli") / "template"
        for name in FILES:
            (directory / name).write_text((template / f"{name}.txt").read_text("utf-8"), "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {directory.resolve()}: {error.strerror}"
        ) from None
    written = [str(directory / name) for name in FILES]
    steps = [] if directory == Path() else [f"cd {directory}"]
    steps.append("openworkflow dev workflows")
    answer(
        as_json,
        {"written": written, "next": steps},
        *(f"wrote {name}" for name in written),
        "\nnext:",
        *(f"  {step}" for step in steps),
    )
