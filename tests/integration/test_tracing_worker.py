"""`openworkflow worker --otel`: a process that sends its traces to a real receiver over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from openworkflow import OpenWorkflow
from openworkflow.core.errors import ConfigurationError
from openworkflow.telemetry import sdk

SHOP = """
from openworkflow import Step, workflow

async def receipt(number: int) -> str:
    return f"receipt-{number}"

@workflow
async def ship(number: int, step: Step) -> str:
    return await step.run("receipt", receipt, number)
"""


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers once it may, if it is made to hang."""

    daemon_threads = True

    def __init__(self, *, hangs: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[ExportTraceServiceRequest] = []
        self.answers = threading.Event()
        if not hangs:
            self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> dict[str, str]:
        """The name of each span, and of the service that it is from."""
        return {
            span.name: service.value.string_value
            for request in self.received
            for resource in request.resource_spans
            for service in resource.resource.attributes
            if service.key == "service.name"
            for scope in resource.scope_spans
            for span in scope.spans
        }


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.server.answers.wait()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def receiving(*, hangs: bool = False) -> Iterator[Receiver]:
    receiver = Receiver(hangs=hangs)
    thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        receiver.shutdown()
        thread.join()
        receiver.server_close()


async def _work(
    folder: Path, url: str, ow: OpenWorkflow, *options: str, **settings: str
) -> tuple[int | None, str]:
    """Have one run executed by a worker process; how that ended, and its log."""
    (folder / "shop.py").write_text(SHOP)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openworkflow", "worker", "shop", "--port", "0", *options),
        cwd=folder,
        env={**environment, "DATABASE_URL": url, **settings},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        run = await ow.run_workflow("ship", 7)
        assert await run.result(300) == "receipt-7"
    finally:
        worker.send_signal(signal.SIGTERM)
        _, log = await worker.communicate()
    return worker.returncode, log.decode()


@pytest.mark.parametrize("by", ["option", "setting"])
async def test_a_worker_sends_its_traces_where_the_standard_variables_say(
    tmp_path: Path, database_url: str, ow: OpenWorkflow, by: str
) -> None:
    with receiving() as receiver:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        options = ["--otel"] if by == "option" else []
        if by == "setting":
            settings |= {"OPENWORKFLOW_OTEL": "on", "OTEL_SERVICE_NAME": "shop"}
        code, log = await _work(tmp_path, database_url, ow, *options, **settings)

    assert code == 0, log
    service = "openworkflow-worker" if by == "option" else "shop"
    assert receiver.spans() == {"workflow_run.execute": service, "step_attempt.execute": service}


async def test_a_receiver_that_hangs_keeps_no_worker_from_its_end(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    """The run is executed, and the process ends, while what it has sent is never answered."""
    with receiving(hangs=True) as receiver:
        endpoint = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
        }
        code, log = await _work(tmp_path, database_url, ow, "--otel", **endpoint)

        assert code == 0, log
        assert not receiver.answers.is_set()


async def test_without_being_asked_a_worker_sends_nothing(
    tmp_path: Path, database_url: str, ow: OpenWorkflow
) -> None:
    with receiving() as receiver:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        code, log = await _work(tmp_path, database_url, ow, **endpoint)

    assert code == 0, log
    assert [] == receiver.received


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")

    with pytest.raises(ConfigurationError, match="'zipkin', which is not installed"):
        sdk.set_up()


def test_without_the_sdk_a_worker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ConfigurationError, match="pip install opentelemetry-sdk"):
        sdk.set_up()
