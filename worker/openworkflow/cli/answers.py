"""What a command answers: a sentence for people, or one JSON object for scripts.

With `--json` standard output has one JSON object a line and nothing else: one for a command that
answers once, one for each item of a stream. An error is one JSON object on standard error.
docs/scripts.md lists the objects.
"""

from collections.abc import Mapping
from typing import Any

import click

from openworkflow.cli.render import as_json, say
from openworkflow.core.printable import printable_json


def answer(json_wanted: bool, document: Mapping[str, Any], *sentences: str) -> None:
    """The document, or the sentences, a line each."""
    if json_wanted:
        as_json(document)
        return
    for sentence in sentences:
        say(sentence)


def error_as_json(kind: str, message: str, page: str | None, exit_code: int) -> None:
    """The one line of an error on standard error; `page` is its place in the documentation."""
    told = {"type": kind, "message": message, "page": page, "exit_code": exit_code}
    click.echo(printable_json({"error": told}), err=True)
