"""Where the dashboard is for those who look: under a path that what is in front of it may take off.

A proxy, or an application that it is mounted in, leaves the prefix in the path or does not; ASGI
has it there, and the server says it in `root_path`.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[\w.~-]+)*", re.ASCII)

_OWN = re.compile(r"/?\Z|/(healthz|login|logout|openid)\Z|/(n|static)/.")
"""How the paths of the dashboard begin; a test looks at its routes."""


class Prefixed:
    """Has each path begin with the prefix, or with `root_path` where none is given."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        root = self._prefix or scope.get("root_path", "")
        if scope["type"] == "http" and root:
            scope = {**scope, "root_path": root, "path": whole(root, scope["path"])}
        await self._app(scope, receive, send)


def whole(root: str, path: str) -> str:
    """A path of which all of `root` was taken off, its beginning, or nothing, as it was.

    A prefix such as /n may be a word of our own paths, so that what is left tells which it was.
    """
    parts, found = root.split("/"), []
    for place in range(1, len(parts) + 1):
        left = "".join(f"/{part}" for part in parts[place:])
        if path == left or path.startswith(f"{left}/"):
            found.append(path[len(left) :])
    rest = next(filter(_OWN.match, found), found[0] if found else None)
    return path if rest is None else root + rest


def checked(prefix: str) -> str:
    """A prefix without a slash at its end. Raises ConfigurationError."""
    found = prefix.rstrip("/")
    if _PREFIX.fullmatch(found) is None:
        raise ConfigurationError(f"a prefix is a path, such as /workflows, not {shown(prefix)}")
    return found
