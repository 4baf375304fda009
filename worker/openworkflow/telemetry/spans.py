"""Spans of runs, steps, children and signals, by the names that the TypeScript SDK has given them.

Only what is traced imports this module, and with it the API of OpenTelemetry. Payloads are in no
attribute. Whatever a provider, sampler or processor raises is logged once and goes no further, and
nothing here is asked whether a run may go on.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from openworkflow.core.errors import Suspended
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import ClaimedRun
from openworkflow.core.step_attempt import StepKind
from openworkflow.telemetry.logs import mask
from openworkflow.telemetry.seam import Claim

P = ParamSpec("P")
T = TypeVar("T")
Attributes = dict[str, str | int]

logger = logging.getLogger(__name__)

TRACE_CONTEXT = "traceContext"
"""Under which the `context` of a run has the trace that it was started in."""
OUTCOMES = {
    "succeeded": "completed",
    "parked": "suspended",
    "released": "suspended",
    "continued": "suspended",
    "undoing": "suspended",
    "retried": "retrying",
    "failed": "failed",
    "canceled": "canceled",
    "lost": "stale",
}
"""The outcomes of executions: as the metrics call them, and as an attribute does."""
_W3C = TraceContextTextMapPropagator()
"""Whatever OTEL_PROPAGATORS says: what is stored has to be read by workers of other programs and
of later times. Baggage is not stored."""
_failed: set[str] = set()


def _harmless(method: Callable[P, T]) -> Callable[P, T | None]:
    """What is raised costs a span, and a line in the log for the first time."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(*args, **kwargs)
        except Exception:
            if method.__qualname__ not in _failed:
                _failed.add(method.__qualname__)
                logger.warning("a trace is not complete; this is said once", exc_info=True)
            return None

    return guarded


class RunSpans:
    """The observer that makes spans: one for each execution, a child of it for each step called.

    An execution is a trace of its own, with a link to the span that started the run; with
    `continues` it is a part of that trace.
    """

    def __init__(self, namespace_id: str, *, continues: bool) -> None:
        self._namespace_id, self._continues = namespace_id, continues
        self._tracer = trace.get_tracer("openworkflow")
        self._runs: dict[Claim, Span] = {}
        self._steps: dict[UUID, Span] = {}

    @_harmless
    def run_begins(self, run: ClaimedRun) -> None:
        """See Observer: the span is the current one in this context, from now on."""
        claim = run.id, run.claim_no
        span = self._runs.get(claim)
        if span is None:
            origin = _extracted(run.trace)
            before = trace.get_current_span(origin).get_span_context()
            span = self._runs[claim] = self._tracer.start_span(
                "workflow_run.execute",
                origin if self._continues else Context(),
                SpanKind.CONSUMER,
                self._about(run) | {"openworkflow.execution.attempt": run.attempts + 1},
                [Link(before)] if before.is_valid and not self._continues else (),
            )
        contexts.attach(trace.set_span_in_context(span, Context()))

    @_harmless
    def run_ends(self, run: ClaimedRun, outcome: str, failure: Failure | None) -> None:
        """See Observer."""
        span = self._runs.get((run.id, run.claim_no))
        if span is None:
            return
        span.set_attribute("openworkflow.execution.outcome", OUTCOMES.get(outcome, outcome))
        if failure is not None:
            _record(span, failure)
        self.run_is_gone((run.id, run.claim_no))

    @_harmless
    def run_is_gone(self, claim: Claim) -> None:
        """See Observer."""
        if (span := self._runs.pop(claim, None)) is not None:
            span.end()

    @_harmless
    def step_begins(self, run: ClaimedRun, call: UUID, key: str, kind: str, attempt: int) -> None:
        """See Observer: the spans of the function are children of this one."""
        about = self._about(run) | {
            "openworkflow.step.name": key,
            "openworkflow.step.attempt": attempt,
        }
        if kind != StepKind.RUN:
            about["openworkflow.step.kind"] = kind
        span = self._tracer.start_span("step_attempt.execute", self._here(run), attributes=about)
        self._steps[call] = span
        contexts.attach(trace.set_span_in_context(span))

    @_harmless
    def step_ends(self, call: UUID, error: BaseException | None) -> None:
        """See Observer."""
        span = self._steps.pop(call, None)
        if span is None:
            return
        try:
            if isinstance(error, Exception) and not isinstance(error, Suspended):
                _record(span, Failure.from_exception(error))
            elif error is not None:
                span.add_event("interrupted")
        finally:
            span.end()

    @_harmless
    def wait_begins(
        self, run: ClaimedRun, kind: str, key: str | None, until: datetime | None
    ) -> None:
        """See Observer: an event of the execution's span."""
        span = self._runs.get((run.id, run.claim_no))
        if span is None:
            return
        about: Attributes = {"openworkflow.step.kind": kind}
        if key is not None:
            about["openworkflow.step.name"] = key
        if until is not None:
            is_limit = kind in (StepKind.SIGNAL, StepKind.CHILD, StepKind.CHILD_START)
            what = "timeout_at" if is_limit else "resume_at"
            about[f"openworkflow.step.{what}"] = until.isoformat()
        span.add_event("wait", about)

    @_harmless
    def child_begins(
        self, run: ClaimedRun, child: UUID | None, name: str, version: str | None
    ) -> str | None:
        """See Observer: a child has a span of its creation, the many of a map have none."""
        here = self._here(run)
        if child is None:
            return _injected(here)
        about = self._about(run) | {
            "openworkflow.parent.run.id": str(run.id),
            "openworkflow.child.run.id": str(child),
            "openworkflow.run.id": str(child),
            "openworkflow.workflow.name": name,
        }
        about.pop("openworkflow.workflow.version", None)
        if version is not None:
            about["openworkflow.workflow.version"] = version
        span = self._tracer.start_span("workflow_run.create", here, SpanKind.PRODUCER, about)
        try:
            return _injected(trace.set_span_in_context(span))
        finally:
            span.end()

    def _here(self, run: ClaimedRun) -> Context:
        """Where the code of the run is: within a span of its own, else of the execution's."""
        if trace.get_current_span().get_span_context().is_valid:
            return contexts.get_current()
        span = self._runs.get((run.id, run.claim_no))
        return Context() if span is None else trace.set_span_in_context(span)

    def _about(self, run: ClaimedRun) -> Attributes:
        about: Attributes = {
            "openworkflow.workflow.name": run.workflow_name,
            "openworkflow.run.id": str(run.id),
            "openworkflow.namespace.id": self._namespace_id,
        }
        if run.version:
            about["openworkflow.workflow.version"] = run.version
        return about


class Operation:
    """Something that a client does, as a span of the trace that its caller is in."""

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._name, self._attributes, self._kind = name, attributes, kind
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> "Operation":
        self._begin()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._end(error)

    @property
    def context(self) -> str | None:
        """What a run is stored with that is started here."""
        return self._context()

    @_harmless
    def made(self, run_ids: Sequence[UUID]) -> None:
        """The runs that were started; a single one is named."""
        if self._span is not None and len(run_ids) == 1:
            self._span.set_attribute("openworkflow.run.id", str(run_ids[0]))

    @_harmless
    def _begin(self) -> None:
        tracer = trace.get_tracer("openworkflow")
        about: dict[str, Any] = dict(self._attributes)
        self._span = tracer.start_span(self._name, kind=self._kind, attributes=about)
        self._token = contexts.attach(trace.set_span_in_context(self._span))

    @_harmless
    def _context(self) -> str | None:
        return _injected(contexts.get_current())

    @_harmless
    def _end(self, error: BaseException | None) -> None:
        if self._token is not None:
            contexts.detach(self._token)
        if self._span is not None:
            try:
                if isinstance(error, Exception):
                    _record(self._span, Failure.from_exception(error))
            finally:
                self._span.end()


def creating(namespace_id: str, name: str | None, version: str | None, count: int) -> Operation:
    """The span of starting runs; how many there are, if not one, is said as of a batch."""
    about: Attributes = {"openworkflow.namespace.id": namespace_id}
    if name is not None:
        about["openworkflow.workflow.name"] = name
    if version is not None:
        about["openworkflow.workflow.version"] = version
    if count != 1:
        about["messaging.batch.message_count"] = count
    return Operation("workflow_run.create", about, SpanKind.PRODUCER)


def _injected(context: Context) -> str | None:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return json.dumps({TRACE_CONTEXT: carrier}) if carrier else None


def _extracted(text: str | None) -> Context:
    """The context that a run was started in; an empty one for anything that is none."""
    try:
        carrier = json.loads(text or "{}")
    except ValueError:
        return Context()
    if not isinstance(carrier, dict):
        return Context()
    texts = {name: value for name, value in carrier.items() if isinstance(value, str)}
    return _W3C.extract(texts, Context())


def _record(span: Span, failure: Failure) -> None:
    """The exception as an event, as `record_exception` has it; without passwords, as in the log."""
    kind, message = failure.type.removeprefix("builtins:").replace(":", "."), mask(failure.message)
    span.set_attribute("error.type", kind)
    about = {"exception.type": kind, "exception.message": message}
    if failure.traceback:
        about["exception.stacktrace"] = mask(failure.traceback)
    span.add_event("exception", about)
    span.set_status(Status(StatusCode.ERROR, message))
