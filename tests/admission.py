"""Admission webhooks: what a cluster's policies may do to objects, where a test says so."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.control_plane import ApiRefusal, ControlPlane

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""From the `request` of an AdmissionReview to its `response`, but for the uid."""

_GROUP = "/apis/admissionregistration.k8s.io/v1/"


@dataclass(slots=True)
class Policy:
    """How often it was asked, by operation, without what was only tried."""

    asked: list[str] = field(default_factory=list)


def patched(*operations: dict[str, Any]) -> dict[str, Any]:
    """Admit the object with these changes (JSON Patch)."""
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


@contextlib.asynccontextmanager
async def admission(
    plane: ControlPlane, namespace: str, group: str, plural: str, folder: Path, answer: Answer
) -> AsyncIterator[Policy]:
    """Ask about these objects of the namespace, from when the block begins."""
    policy, begun = Policy(), asyncio.Event()

    async def asked(request: web.Request) -> web.Response:
        review = (await request.json())["request"]
        if review.get("dryRun"):
            begun.set()
            answered = {"allowed": True}
        else:
            policy.asked.append(review["operation"])
            answered = await answer(review)
        response = {"uid": review["uid"], **answered}
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return web.json_response(body | {"response": response})

    app = web.Application()
    app.router.add_route("*", "/", asked)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context, authority = _certificate(folder)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
    hook = {
        "name": "policy.example.com",
        "clientConfig": {"url": url, "caBundle": authority},
        "rules": [_rule(group, plural)],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "timeoutSeconds": 1,
        "admissionReviewVersions": ["v1"],
    }
    path, name = f"{_GROUP}mutatingwebhookconfigurations", f"tests-{uuid.uuid4().hex[:8]}"
    body = {"metadata": {"name": name}, "webhooks": [hook]}
    await asyncio.to_thread(plane.request, "POST", path, body)
    root = f"/apis/{group}/v1" if group else "/api/v1"
    probe = f"{root}/namespaces/{namespace}/{plural}?dryRun=All"

    def is_asked() -> bool:
        with contextlib.suppress(ApiRefusal):  # it is no whole object, but the policy comes first
            plane.request("POST", probe, {"metadata": {"name": "probe"}})
        return begun.is_set()

    try:
        while not await asyncio.to_thread(is_asked):
            await asyncio.sleep(0.1)
        yield policy
    finally:
        await asyncio.to_thread(plane.request, "DELETE", f"{path}/{name}")
        await runner.cleanup()


def _rule(group: str, plural: str) -> dict[str, Any]:
    scope = {"apiGroups": [group], "apiVersions": ["*"], "resources": [plural]}
    return {**scope, "operations": ["CREATE", "UPDATE"]}


def _certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    key, certificate = folder / "policy.key", folder / "policy.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=policy"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, base64.b64encode(certificate.read_bytes()).decode()
