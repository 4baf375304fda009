"""Whether anybody traces, and who does; OpenTelemetry is imported for those who do, and only then.

A library traces by the provider that its application has set. Where the application has set none,
nothing is made, stored or imported.
"""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from openworkflow.telemetry.seam import Observer

if TYPE_CHECKING:
    from openworkflow.telemetry.spans import Operation

Traces = Literal["links", "parent", "off"]
"""How an execution is traced: as a trace linked to what started the run, as a part of that trace,
or not at all."""
_API = "opentelemetry.trace"
_NO_OPERATION: AbstractContextManager[None] = nullcontext()


def is_traced() -> bool:
    """Whether the application has set a provider of traces."""
    trace: Any = sys.modules.get(_API)
    if trace is None or not hasattr(trace, "get_tracer_provider"):
        return False  # or it is being imported, by another thread
    nobody = trace.ProxyTracerProvider, trace.NoOpTracerProvider
    return not isinstance(trace.get_tracer_provider(), nobody)


def observer_of(namespace_id: str, traces: Traces) -> Observer | None:
    """Who makes spans of a worker's executions; None where nobody traces."""
    if traces == "off" or not is_traced():
        return None
    from openworkflow.telemetry.spans import RunSpans

    return RunSpans(namespace_id, continues=traces == "parent")


def creating(
    namespace_id: str, name: str, version: str | None, count: int
) -> "AbstractContextManager[Operation | None]":
    """The span of starting so many runs of a workflow."""
    if not is_traced():
        return _NO_OPERATION
    from openworkflow.telemetry import spans

    return spans.creating(namespace_id, name, version, count)


def forking(namespace_id: str) -> "AbstractContextManager[Operation | None]":
    """The span of starting a run with the history of another, whose workflow is not asked for."""
    if not is_traced():
        return _NO_OPERATION
    from openworkflow.telemetry import spans

    return spans.creating(namespace_id, None, None, 1)


def canceling(namespace_id: str, run_id: UUID) -> "AbstractContextManager[Operation | None]":
    """The span of canceling a run."""
    return _operation("workflow_run.cancel", _of(namespace_id, run_id))


def sending(
    namespace_id: str, signal: str, run_id: UUID | None
) -> "AbstractContextManager[Operation | None]":
    """The span of sending a signal to a run, or to a topic if that is None."""
    if not is_traced():
        return _NO_OPERATION
    about: dict[str, str | int] = {"openworkflow.signal.name": signal}
    if run_id is not None:
        about["openworkflow.signal.recipient_count"] = 1
    return _operation("signal.send", _of(namespace_id, run_id) | about)


def log_fields() -> dict[str, str]:
    """The names of the span in progress, for a line of the log; nothing where there is none."""
    trace: Any = sys.modules.get(_API)
    if trace is None or not hasattr(trace, "get_current_span"):
        return {}
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def _of(namespace_id: str, run_id: UUID | None) -> dict[str, str | int]:
    run = {} if run_id is None else {"openworkflow.run.id": str(run_id)}
    return {"openworkflow.namespace.id": namespace_id, **run}


def _operation(
    name: str, attributes: Mapping[str, str | int]
) -> "AbstractContextManager[Operation | None]":
    if not is_traced():
        return _NO_OPERATION
    from openworkflow.telemetry import spans

    return spans.Operation(name, attributes)
