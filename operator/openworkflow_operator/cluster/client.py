"""The only talk with the Kubernetes API: a few verbs on plain objects, each with a time limit."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from openworkflow_operator.api import kinds, nesting
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import FIELD_MANAGER, SCALER_FIELD_MANAGER
from openworkflow_operator.api.spec import Key

Object = dict[str, Any]

REQUEST_SECONDS: Final = 15
#: The server ends a watch after this; shorter than what proxies and NATs forget.
WATCH_SECONDS: Final = 240

#: Of a watch; etcd holds no object that is anywhere near as large.
LONGEST_LINE: Final = 32 * 2**20

_MERGE: Final = "application/merge-patch+json"
#: The charset has the client send the text as it is.
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
#: No object ever has this version: etcd's first write makes 2. An apply that asks for it creates,
#: or is refused, and the fields have one manager from their first moment on.
_OF_NONE: Final = "1"


class ClusterError(Exception):
    """The API server refused or did not answer; `status` is its HTTP code, 0 for no answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def is_gone(self) -> bool:
        """Whether there is no such object: the API server says so, not a proxy before it."""
        return self.status == 404 and self.reason == "NotFound"


def connected(configuration: Configuration) -> ApiClient:
    """A client of the API server, with as many connections as are asked for at once.

    A watch holds one for as long as it lasts, and there are seven for each namespace: of the
    hundred that a client may have by default, fifteen namespaces left none for anything else.
    """
    configuration.connection_pool_maxsize = 0
    return ApiClient(configuration)


class Cluster:
    """The API server of the cluster."""

    def __init__(
        self, client: ApiClient, on_call: Callable[[str, int], None] = lambda verb, status: None
    ) -> None:
        self._client, self._on_call = client, on_call

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, None if there is none."""
        try:
            return _object(await self._call("GET", kind.path(namespace, name)), kind)
        except ClusterError as error:
            if error.is_gone:
                return None
            raise

    async def is_there(self) -> bool:
        """Whether the API server answers, and not only what is before it."""
        try:
            return "gitVersion" in await self._call("GET", "/version")
        except ClusterError as error:
            return error.reason == "Forbidden"

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> tuple[list[Object], str]:
        """All objects, and the version from which to watch. A kind not served has none."""
        query = {"labelSelector": selector} if selector else {}
        query |= {"fieldSelector": fields} if fields else {}
        items: list[Object] = []
        while True:
            answer = await self._call("GET", kind.path(namespace), {**query, "limit": "500"})
            page, metadata = answer.get("items"), answer.get("metadata")
            if not isinstance(page, list) or not isinstance(metadata, dict):
                raise ClusterError(0, "NoList", "what answered is not the API server's list")
            items += (_object(item, kind) for item in page)
            if not (more := metadata.get("continue")):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = more

    async def watch(
        self, kind: Kind, namespace: str | None, selector: str | None, version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes as (type, object) until the server ends the stream.

        ClusterError 410 when the version is too old to go on from: list again.
        """
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        if selector:
            query["labelSelector"] = selector
        response = await self._send("GET", kind.path(namespace), query, timeout=WATCH_SECONDS + 30)
        try:
            await self._check(response)
            async for line in _lines(response):
                event = _parsed(line)
                change, item = str(event.get("type")), event.get("object")
                if change == "ERROR" and isinstance(item, dict):
                    code = item.get("code")
                    raise _refusal(code if isinstance(code, int) else 500, item)
                yield change, _object(item, kind, is_named=change != "BOOKMARK")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterError(0, type(error).__name__, "the watch was cut") from error
        finally:
            response.close()

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, whoever made it; asked for as a list, which the operator may read anyway."""
        query = {"fieldSelector": f"metadata.name={name}"}
        items = (await self._call("GET", kind.path(namespace), query)).get("items")
        if not isinstance(items, list):
            raise ClusterError(0, "NoList", "what answered is not the API server's list")
        return _object(items[0], kind) if items else None

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], uid: str | None) -> Object:
        """Server-side apply: make the object have these fields, and own them.

        Of exactly the object with this uid; for None there must be none, and it is created. Else
        ClusterError 409, or 422 where the uid is another one: nothing is ever taken over.
        """
        which = {"resourceVersion": _OF_NONE} if uid is None else {"uid": uid}
        metadata = {**manifest["metadata"], **which}
        answer = await self._call(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"]),
            {"fieldManager": FIELD_MANAGER, "force": "true"},
            body=as_yaml({**manifest, "metadata": metadata}),
            content_type=_APPLY,
        )
        return _object(answer, kind)

    async def scale(self, namespace: str, name: str, replicas: int) -> Object:
        """Set the number of pods of a Deployment, and own that one field.

        It is applied, not patched: only so does a manager own a value that it does not change.
        """
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas},
        }
        answer = await self._call(
            "PATCH",
            kinds.DEPLOYMENT.path(namespace, name, "scale"),
            {"fieldManager": SCALER_FIELD_MANAGER, "force": "true"},
            body=as_yaml(body),
            content_type=_APPLY,
        )
        if not isinstance(answer.get("spec"), dict):
            raise ClusterError(0, "NoObject", "what answered is not the API server's scale")
        return _object(answer, kinds.DEPLOYMENT)

    async def write_status(self, key: Key, status: Mapping[str, Any]) -> Object:
        """Replace what the resource says about itself."""
        path = kinds.WORKFLOW_NAMESPACE.path(key.namespace, key.name, "status")
        query = {"fieldManager": FIELD_MANAGER}
        body = {"status": status}
        answer = await self._call("PATCH", path, query, body=body, content_type=_MERGE)
        return _object(answer, kinds.WORKFLOW_NAMESPACE)

    async def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str]
    ) -> Object:
        """Set annotations of an object."""
        body = {"metadata": {"annotations": annotations}}
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(namespace, name)
        return await self._call("PATCH", path, query, body=body, content_type=_MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid and what it owns; nothing happens if it is not there.

        ClusterError 409 if there is another one of this name.
        """
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", kind.path(namespace, name), body=options)
        except ClusterError as error:
            if not error.is_gone:
                raise

    async def create(self, kind: Kind, namespace: str, body: Mapping[str, Any]) -> Object:
        """Create the object; ClusterError 409 if it exists."""
        return _object(await self._call("POST", kind.path(namespace), body=body), kind)

    async def replace(self, kind: Kind, namespace: str, body: Mapping[str, Any]) -> Object:
        """Replace the object; ClusterError 409 if somebody else changed it meanwhile."""
        path = kind.path(namespace, body["metadata"]["name"])
        return _object(await self._call("PUT", path, body=body), kind)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> Object:
        """Merge the given fields into the object."""
        path = kind.path(namespace, name)
        return _object(await self._call("PATCH", path, body=body, content_type=_MERGE), kind)

    async def _call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | str | None = None,
        content_type: str = "application/json",
    ) -> Object:
        response = await self._send(verb, path, query, body, content_type)
        try:
            await self._check(response)
            return _parsed(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterError(0, type(error).__name__, "the answer was cut") from error
        finally:
            response.close()

    async def _send(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | str | None = None,
        content_type: str = "application/json",
        timeout: float = REQUEST_SECONDS,
    ) -> aiohttp.ClientResponse:
        try:
            request = await self._client.param_serialize(
                verb,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=timeout)
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._on_call(verb, 0)
            raise ClusterError(0, type(error).__name__, "the API server does not answer") from error
        self._on_call(verb, answer.status)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status < 400:
            return
        text = await response.text(errors="replace")
        try:
            status = json.loads(text)
        except (ValueError, RecursionError):  # a proxy's page
            status = None
        if not isinstance(status, dict):
            raise ClusterError(response.status, response.reason or "", text[:200])
        raise _refusal(response.status, status)


def as_yaml(body: Mapping[str, Any]) -> str:
    r"""JSON that is YAML too, as the API server reads an apply.

    JSON writes what lies beyond 16 bits, such as an emoji, as two escapes, which YAML refuses.
    """
    return _ESCAPE.sub(_as_one, json.dumps(body))


_ESCAPE: Final = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


def _as_one(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]  # a backslash, after which a `u` is only a letter
    high, low = int(found[1], 16) - 0xD800, int(found[2], 16) - 0xDC00
    return f"\\U{0x10000 + (high << 10) + low:08x}"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a stream; aiohttp's own are 128 KiB at most, and an object may have more."""
    rest = b""
    async for some in response.content.iter_any():
        *lines, rest = (rest + some).split(b"\n") if b"\n" in some else (rest + some,)
        for line in filter(None, lines):
            yield line
        if len(rest) > LONGEST_LINE:
            raise ClusterError(0, "LineTooLong", "what answered is not the API server's watch")


def _parsed(text: bytes) -> Object:
    """A JSON object; a cut line, or a proxy's page, is an answer that did not come."""
    try:
        answer = json.loads(text)
    except RecursionError:
        # Of somebody's object, in a part that may be anything: the others go on.
        answer = _parsed(nesting.cut(text))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ClusterError(0, "NoObject", "what answered is not the API server, or it was cut")
    return answer


def _refusal(code: int, status: Mapping[str, Any]) -> ClusterError:
    """What a Status says; words that are no text are none."""
    said = [status.get(name) for name in ("reason", "message")]
    reason, message = (each if isinstance(each, str) else "" for each in said)
    return ClusterError(code, reason, message)


def _object(item: Any, kind: Kind, is_named: bool = True) -> Object:
    """The item, if it is an object of Kubernetes with what the store knows objects by."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    names: tuple[str, ...] = ("name", "namespace") if is_named else ()
    names += ("resourceVersion",) if kind.is_stored else ()
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(n), str) for n in names):
        raise ClusterError(0, "NoObject", "what answered is not the API server's object")
    return dict(item)
