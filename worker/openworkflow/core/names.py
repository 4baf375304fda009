"""The one rule for text that becomes a name in the database: workflows, steps, keys, builds."""

import re
from typing import Literal

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown
from openworkflow_contract.names import BUILD_ID

NAME_LIMIT = 200
"""Characters of the name or version of a workflow, and of a step's name."""
PATCH_LIMIT = 100
"""Characters of a patch's name."""
KEY_LIMIT = 500
"""Characters of an idempotency key."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable_text(
    what: str,
    text: object,
    limit: int,
    *,
    unit: Literal["characters", "bytes"] = "characters",
    printable: bool = False,
) -> str:
    """Return `text` if PostgreSQL can store it as a name of at most `limit` characters or bytes.

    Raises ConfigurationError, which begins with `what`: for anything but text, for empty text, and
    for NUL and surrogates; with `printable`, for line breaks and other invisible characters too.
    """
    if type(text) is str and 0 < len(text) <= limit and text.isascii() and text.isprintable():
        return text  # nearly every name, and this is asked at every step
    if type(text) is str and text and not _UNSTORABLE.search(text):
        size = len(text) if unit == "characters" else len(text.encode())
        if size <= limit and (not printable or text.isprintable()):
            return text
        told = f"{shown(text)}, which has {size}" if size > limit else shown(text)
    else:
        told = shown(text)
    invisible = "invisible characters" if printable else "NUL or surrogates"
    raise ConfigurationError(
        f"{what} must be text of 1 to {limit} {unit} without {invisible}, not {told}"
    )


def valid_build_id(build_id: object) -> str:
    """Return `build_id` if a Prometheus label and a URL can carry it. Raises ConfigurationError.

    An image's digest or tag, or a commit, is such an id.
    """
    if type(build_id) is str and BUILD_ID.fullmatch(build_id):
        return build_id
    raise ConfigurationError(
        "a build id is 1 to 128 letters, digits and -_.:/@+, "
        f"such as a commit or an image's digest, not {shown(build_id)}"
    )
