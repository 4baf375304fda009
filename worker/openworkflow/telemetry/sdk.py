"""The SDK of OpenTelemetry for a process that is a worker's own, by its standard variables.

OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER and OTEL_BSP_* mean what OpenTelemetry says. A library never comes here: it
traces by the provider of its application.
"""

import os
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from openworkflow.core.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_NAME = "openworkflow-worker"
FLUSH_SECONDS = 5.0
"""How long the end of a worker may wait for the last spans to leave."""
_EXPORTERS = "opentelemetry_traces_exporter"
_PACKAGES = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"


def set_up() -> "TracerProvider":
    """Set the provider of this process, and return it. Raises ConfigurationError."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError(
            f"traces need the SDK of OpenTelemetry and an exporter: {_PACKAGES}"
        ) from None
    exporters = [_exporter(name) for name in _names()]
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": SERVICE_NAME})
    provider = TracerProvider(resource=resource)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def shut_down(provider: "TracerProvider") -> None:
    """Let the last spans leave, for a few seconds; whoever does not take them loses them."""
    thread = threading.Thread(target=provider.shutdown, name="openworkflow-traces", daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)


def _names() -> Iterator[str]:
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if (name := name.strip()) and name != "none":
            yield name


def _exporter(name: str) -> Any:
    """The exporter of this name among those that are installed."""
    if name == "otlp":
        general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general).strip()
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = {each.name: each for each in entry_points(group=_EXPORTERS)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER names {name!r}, which is not installed (there is: {known}); "
            f"for OTLP over HTTP: {_PACKAGES}"
        )
    return found[name].load()()
