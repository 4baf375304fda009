"""What every page is made of: the namespaces, who is let in, the templates, what is followed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from inspect import isawaitable
from typing import Any
from urllib.parse import unquote

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from openworkflow.client import OpenWorkflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.failure import Failure
from openworkflow.core.filters import quoted
from openworkflow.web import words
from openworkflow.web.auth import Auth, Caller, Role
from openworkflow.web.live import Hub

Redact = Callable[[str, Any], Any]
"""Called with what a value is (input, output, error, status or result) and the value."""


@dataclass(frozen=True)
class Site:
    """A dashboard."""

    clients: Mapping[str, OpenWorkflow]
    """By namespace."""
    auth: Auth
    redact: Redact | None
    hub: Hub

    @cached_property
    def templates(self) -> jinja2.Environment:
        """The templates; whatever they are given is escaped."""
        folder = resources.files("openworkflow.web") / "templates"
        loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8"))
        made = jinja2.Environment(
            loader=loader,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        made.filters |= {
            "length": words.length,
            "moment": words.moment,
            "number": words.number,
            "plain": words.plain,
            "quoted": quoted,
            "segment": words.segment,
            "short": words.short,
            "value": words.value,
        }
        made.globals |= {"between": words.between, "failure_of": Failure.from_object, "Role": Role}
        return made

    def shown(self, what: str, given: Any) -> Any:
        """A value of a run as it may be seen."""
        return given if self.redact is None or given is None else self.redact(what, given)

    async def caller(self, request: HTTPConnection) -> Caller:
        """Who asks. Raises HTTPException 401, and ConfigurationError."""
        asked: Any = self.auth(request)
        found = await asked if isawaitable(asked) else asked
        if found is None:
            raise HTTPException(401)
        if not isinstance(found, Caller):
            raise ConfigurationError(
                f"auth= gives a Caller, or None, and not {type(found).__name__}"
            )
        return found


@dataclass(frozen=True)
class Place:
    """A namespace as somebody sees it."""

    site: Site
    namespace: str
    caller: Caller
    role: Role
    root: str
    """The path under which the dashboard is mounted."""

    @property
    def ow(self) -> OpenWorkflow:
        """The client of the namespace."""
        return self.site.clients[self.namespace]

    @property
    def backend(self) -> Any:
        """The backend of the namespace."""
        return self.ow._backend

    @property
    def base(self) -> str:
        """The path of the namespace's pages."""
        return f"{self.root}/n/{words.segment(self.namespace)}"


Load = Callable[[Place, Mapping[str, str]], Awaitable[dict[str, Any]]]
"""What a page shows; of the path and the query it is given the parameters."""


async def place_of(site: Site, request: HTTPConnection, least: Role = Role.VIEWER) -> Place:
    """The namespace of a request, as its caller sees it. Raises HTTPException 401, 403 and 404."""
    caller = await site.caller(request)
    namespace = unquote(request.path_params["namespace"])
    role = caller.role_in(namespace) if namespace in site.clients else None
    if role is None:
        raise HTTPException(404, "there is no such namespace here")
    if role < least:
        raise HTTPException(
            403, f"that is for {least.name.lower()}s, and you are {role.name.lower()} here"
        )
    return Place(site, namespace, caller, role, request.scope.get("root_path", ""))
