"""Traces by the real SDK of OpenTelemetry, of real runs: what is a span, and of whom it is a child.

A provider can be set once in a process, so each test puts one in the place of none, and takes it
away again: the other tests of the process are not traced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    Limit,
    OpenWorkflow,
    RetryPolicy,
    RunHandle,
    Step,
    SyncStep,
    WorkflowFailed,
    workflow,
)
from openworkflow.core.workflow_run import RunStatus
from openworkflow.telemetry import logs, spans
from tests.helpers import StartWorker, eventually

SECRET = "4111-1111-1111-1111"


class Traced:
    """The spans that have ended, of this test."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider, self._exporter = provider, exporter

    def named(self, name: str, **about: Any) -> list[ReadableSpan]:
        """Those of this name, and with these attributes: `step_name` is that of a step."""
        wanted = {f"openworkflow.{key.replace('_', '.')}": value for key, value in about.items()}
        return [
            span
            for span in self._exporter.get_finished_spans()
            if span.name == name and wanted.items() <= dict(span.attributes or {}).items()
        ]

    def one(self, name: str, **about: Any) -> ReadableSpan:
        (span,) = self.named(name, **about)
        return span

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    exporter = InMemorySpanExporter()
    return Traced(_provided(monkeypatch, SimpleSpanProcessor(exporter)), exporter)


def _provided(monkeypatch: pytest.MonkeyPatch, processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(spans, "_failed", set())
    return provider


async def charge(card: str) -> str:
    with trace.get_tracer("theirs").start_as_current_span("their call"):
        return card


def charge_in_thread(card: str) -> str:
    with trace.get_tracer("theirs").start_as_current_span("their call"):
        return card


@workflow(version="7")
async def order(card: str, step: Step) -> str:
    return await step.run("charge", charge, card)


@workflow
def order_in_a_thread(card: str, step: SyncStep) -> str:
    return step.run("charge", charge_in_thread, card)


@workflow
async def order_by_a_thread(card: str, step: Step) -> str:
    return await step.run("charge", charge_in_thread, card)


@workflow
async def nap(length: str, step: Step) -> None:
    await step.run("before", charge, "a")
    await step.sleep("nap", length)
    await step.run("after", charge, "b")


async def _done(
    start_worker: StartWorker, run: RunHandle[Any], *served: Any, **options: Any
) -> None:
    """Have the run executed to its end, and all of it observed."""
    worker = await start_worker(*served, **options)
    with contextlib.suppress(WorkflowFailed):
        await run.result(60)
    await worker.stop()  # it has heard of the last end by then


async def test_an_execution_is_a_trace_linked_to_what_started_the_run(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    with trace.get_tracer("theirs").start_as_current_span("request") as request:
        run = await ow.run_workflow(order, SECRET)
    await _done(start_worker, run, order)

    created, executed = traced.one("workflow_run.create"), traced.one("workflow_run.execute")
    assert created.parent == request.get_span_context()
    assert created.kind is SpanKind.PRODUCER
    assert executed.kind is SpanKind.CONSUMER
    assert executed.parent is None
    assert executed.context.trace_id != created.context.trace_id
    assert [link.context.span_id for link in executed.links] == [created.context.span_id]
    about = {
        "openworkflow.workflow.name": "order",
        "openworkflow.workflow.version": "7",
        "openworkflow.namespace.id": "default",
        "openworkflow.run.id": str(run.id),
    }
    assert created.attributes == about
    assert executed.attributes == about | {
        "openworkflow.execution.attempt": 1,
        "openworkflow.execution.outcome": "completed",
    }
    assert executed.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    "flow", [order, order_in_a_thread, order_by_a_thread], ids=lambda flow: flow.name
)
async def test_what_a_step_calls_is_in_the_span_of_its_attempt(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced, flow: Any
) -> None:
    run = await ow.run_workflow(flow, SECRET)
    await _done(start_worker, run, flow)

    executed, step = traced.one("workflow_run.execute"), traced.one("step_attempt.execute")
    assert step.parent == executed.context
    assert traced.one("their call").parent == step.context
    assert step.attributes is not None
    assert step.attributes["openworkflow.step.name"] == "charge"
    assert step.attributes["openworkflow.run.id"] == str(run.id)
    assert "openworkflow.step.kind" not in step.attributes
    assert SECRET not in "".join(span.to_json() for span in traced.all())


async def test_what_is_replayed_has_no_span_and_each_execution_has_one(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    traced: Traced,
    sql: asyncpg.Connection[Any],
    backend: BackendPostgres,
) -> None:
    run = await ow.run_workflow(nap, "1h")
    worker = await start_worker(nap, rest=timedelta(0))
    await eventually(lambda: traced.named("workflow_run.execute"))
    await sql.execute("UPDATE step_attempts SET resume_at = now() WHERE kind = 'sleep'")
    await backend.wake_workflow_run(run.id)
    await run.result(60)
    await worker.stop()

    first, second = traced.named("workflow_run.execute")
    outcomes = [
        dict(span.attributes or {})["openworkflow.execution.outcome"] for span in (first, second)
    ]
    assert outcomes == ["suspended", "completed"]
    assert first.context.trace_id != second.context.trace_id
    created = traced.one("workflow_run.create")
    assert {link.context.span_id for link in (*first.links, *second.links)} == {
        created.context.span_id
    }
    assert traced.one("step_attempt.execute", step_name="before").parent == first.context
    assert traced.one("step_attempt.execute", step_name="after").parent == second.context
    (wait,) = first.events
    assert wait.name == "wait"
    assert dict(wait.attributes or {}).keys() == {
        "openworkflow.step.name",
        "openworkflow.step.kind",
        "openworkflow.step.resume_at",
    }


async def test_failures_are_recorded_where_they_happen(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    async def decline() -> None:
        raise LookupError("no such card in postgresql://shop:hunter2@db/cards")

    once = RetryPolicy(initial=timedelta(milliseconds=10), max_attempts=2)

    @workflow
    async def declined(input: None, step: Step) -> None:
        await step.run("charge", decline, retry=once)

    run = await ow.run_workflow(declined)
    await _done(start_worker, run, declined, rest=timedelta(seconds=2))

    attempts = traced.named("step_attempt.execute", step_name="charge")
    executed = traced.one("workflow_run.execute")
    for number, attempt in enumerate(attempts, 1):
        assert attempt.attributes is not None
        assert attempt.attributes["openworkflow.step.attempt"] == number
        assert attempt.attributes["error.type"] == "LookupError"
        assert [event.name for event in attempt.events] == ["exception"]
        assert attempt.status.status_code is StatusCode.ERROR
    assert len(attempts) == 2
    assert "hunter2" not in "".join(span.to_json() for span in traced.all())
    assert [event.name for event in executed.events] == ["wait", "exception"]
    assert executed.status.status_code is StatusCode.ERROR
    assert executed.attributes is not None
    assert executed.attributes["openworkflow.execution.outcome"] == "failed"
    with pytest.raises(WorkflowFailed):
        await run.result(1)


async def test_children_are_linked_to_the_execution_that_started_them(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced, sql: asyncpg.Connection[Any]
) -> None:
    @workflow
    async def family(input: None, step: Step) -> None:
        await step.run_workflow("child", order, "a")
        await step.map("many", order, ["b", "c"])

    run = await ow.run_workflow(family)
    await _done(start_worker, run, family, order, rest=timedelta(0))

    mine = {
        span.context.span_id: span
        for span in traced.named("workflow_run.execute", workflow_name="family")
    }
    created = traced.one("workflow_run.create", parent_run_id=str(run.id))
    assert created.parent is not None
    assert created.parent.span_id in mine
    about = dict(created.attributes or {})
    child = about["openworkflow.child.run.id"]
    (link,) = traced.one("workflow_run.execute", run_id=child).links
    assert link.context.span_id == created.context.span_id
    # Those of a map lead to the execution itself: thousands need no span each.
    others = [
        span
        for span in traced.named("workflow_run.execute", workflow_name="order")
        if dict(span.attributes or {})["openworkflow.run.id"] != child
    ]
    assert len(others) == 2
    assert all(link.context.span_id in mine for span in others for link in span.links)
    assert all(len(span.links) == 1 for span in others)


async def test_no_run_is_in_the_trace_of_another_nor_any_branch(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    async def in_turn(number: int) -> int:
        await asyncio.sleep(0)
        with trace.get_tracer("theirs").start_as_current_span(f"call {number}"):
            await asyncio.sleep(0)
        return number

    @workflow
    async def branches(run: int, step: Step) -> None:
        async def branch(number: int) -> None:
            with trace.get_tracer("theirs").start_as_current_span(f"branch {number}"):
                await step.run(f"step-{number}", in_turn, run * 10 + number)

        await asyncio.gather(*(branch(number) for number in range(3)))
        await step.run("last", in_turn, run * 10 + 9)

    with trace.get_tracer("theirs").start_as_current_span("the worker's own start"):
        worker = await start_worker(branches, concurrency=20)
    runs = await ow.run_workflows(branches, list(range(20)))
    for run in runs:
        await run.result(60)
    await worker.stop()

    by_id = {span.context.span_id: span for span in traced.all()}
    for number, run in enumerate(runs):
        executed = traced.one("workflow_run.execute", run_id=str(run.id))
        assert executed.parent is None
        steps = traced.named("step_attempt.execute", run_id=str(run.id))
        assert len(steps) == 4
        for step in steps:
            assert step.context.trace_id == executed.context.trace_id
            place = str(dict(step.attributes or {})["openworkflow.step.name"]).removeprefix("step-")
            above = by_id[step.parent.span_id] if step.parent else None
            assert above is not None
            assert above.name == ("workflow_run.execute" if place == "last" else f"branch {place}")
            call = traced.one(f"call {number * 10 + (9 if place == 'last' else int(place))}")
            assert call.parent == step.context


async def test_many_runs_share_the_span_of_their_start_and_a_fork_has_its_own(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    runs = await ow.run_workflows(order, ["a", "b"])
    worker = await start_worker(order)
    for run in runs:
        await run.result(60)
    forked = await ow.fork(runs[0].id)
    await forked.result(60)
    await worker.stop()

    many, one = traced.named("workflow_run.create")
    assert dict(many.attributes or {})["messaging.batch.message_count"] == 2
    assert dict(one.attributes or {})["openworkflow.run.id"] == str(forked.id)
    for run, created in ((runs[0], many), (runs[1], many), (forked, one)):
        (link,) = traced.one("workflow_run.execute", run_id=str(run.id)).links
        assert link.context.span_id == created.context.span_id


async def test_runs_are_linked_however_they_are_started(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced, sql: asyncpg.Connection[Any]
) -> None:
    async with sql.transaction():
        within = await ow.run_workflow(order, "a", connection=sql)
    runs = [
        within,
        await ow.run_workflow(order, "b", idempotency_key="b"),
        await ow.run_workflow(order, "c", unique="c"),
        await ow.run_workflow("order", "d", version="7", priority=3),
    ]
    worker = await start_worker(order)
    for run in runs:
        await run.result(60)
    await worker.stop()

    for run in runs:
        created = traced.one("workflow_run.create", run_id=str(run.id))
        (link,) = traced.one("workflow_run.execute", run_id=str(run.id)).links
        assert link.context.span_id == created.context.span_id


async def test_signals_and_cancels_are_spans_of_the_callers_trace(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    @workflow
    async def waiting(input: None, step: Step) -> str:
        return await step.wait_for_signal("paid", type=str)

    @workflow
    async def paying(run_id: str, step: Step) -> None:
        await step.signal(run_id, "paid", SECRET)

    run, other = await ow.run_workflow(waiting), await ow.run_workflow(waiting)
    with trace.get_tracer("theirs").start_as_current_span("request") as request:
        await ow.signal(run.id, "paid", SECRET)
        await other.cancel()
    await _done(start_worker, run, waiting)

    sent, canceled = traced.one("signal.send"), traced.one("workflow_run.cancel")
    assert sent.parent == canceled.parent == request.get_span_context()
    assert sent.attributes == {
        "openworkflow.namespace.id": "default",
        "openworkflow.run.id": str(run.id),
        "openworkflow.signal.name": "paid",
        "openworkflow.signal.recipient_count": 1,
    }
    assert SECRET not in "".join(span.to_json() for span in traced.all())


async def test_a_short_flow_may_be_one_trace(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    run = await ow.run_workflow(order, "a")
    await _done(start_worker, run, order, traces="parent")

    executed, created = traced.one("workflow_run.execute"), traced.one("workflow_run.create")
    assert executed.parent is not None
    assert executed.parent.span_id == created.context.span_id
    assert executed.context.trace_id == created.context.trace_id
    assert not executed.links


async def test_a_worker_may_trace_nothing(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    run = await ow.run_workflow(order, "a")
    await _done(start_worker, run, order, traces="off")

    assert [] == traced.named("workflow_run.execute") + traced.named("step_attempt.execute")
    with pytest.raises(ConfigurationError, match="traces must be one of links, parent, off"):
        ow.new_worker(workflows=[order], traces="all")  # type: ignore[arg-type]


async def test_where_nobody_traces_nothing_is_stored(
    ow: OpenWorkflow, start_worker: StartWorker, sql: asyncpg.Connection[Any]
) -> None:
    run = await ow.run_workflow(order, "a")
    await _done(start_worker, run, order)

    assert await sql.fetchval("SELECT context FROM workflow_runs") is None


async def test_what_is_stored_is_the_trace_and_no_baggage(
    ow: OpenWorkflow, traced: Traced, sql: asyncpg.Connection[Any]
) -> None:
    """As the TypeScript SDK stores it; baggage may be anything, and rows are kept for long."""
    token = contexts.attach(baggage.set_baggage("card", SECRET))
    try:
        await ow.run_workflow(order, "a")
    finally:
        contexts.detach(token)

    created = traced.one("workflow_run.create").context
    stored = json.loads(await sql.fetchval("SELECT context::text FROM workflow_runs"))
    parts = f"00-{created.trace_id:032x}-{created.span_id:016x}-"
    assert stored.keys() == {"traceContext"}
    assert stored["traceContext"].keys() == {"traceparent"}
    assert stored["traceContext"]["traceparent"].startswith(parts)


@pytest.mark.parametrize(
    "context",
    [
        '{"traceContext": 1}',
        '{"traceContext": ["a"]}',
        '{"traceContext": {"traceparent": 7}}',
        '{"traceContext": {"traceparent": "00-zz-1-01"}}',
        '"text"',
        "[]",
        "{}",
    ],
)
async def test_a_trace_that_is_none_costs_the_link_and_no_run(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    traced: Traced,
    sql: asyncpg.Connection[Any],
    context: str,
) -> None:
    run = await ow.run_workflow(order, "a")
    await sql.execute("UPDATE workflow_runs SET context = $1::text::jsonb", context)
    await _done(start_worker, run, order)

    assert not traced.one("workflow_run.execute").links
    assert await run.result(1) == "a"


class Raising(SpanProcessor):
    def on_start(self, span: Span, parent_context: Any = None) -> None:
        raise RuntimeError("at the start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("at the end")


class RaisingAtTheEnd(Raising):
    def on_start(self, span: Span, parent_context: Any = None) -> None:
        pass


@pytest.mark.parametrize("kind", [Raising, RaisingAtTheEnd])
async def test_a_processor_that_raises_costs_no_run_and_is_said_once(
    ow: OpenWorkflow,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[SpanProcessor],
) -> None:
    _provided(monkeypatch, kind())

    async def plain(number: int) -> int:
        return number

    @workflow
    async def steps(input: int, step: Step) -> int:
        for number in range(3):
            await step.run(f"step-{number}", plain, number)
        return input

    with caplog.at_level(logging.WARNING):
        runs = await ow.run_workflows(steps, [1, 2, 3])
        worker = await start_worker(steps)
        assert [await run.result(60) for run in runs] == [1, 2, 3]
        await worker.stop()

    told = [record for record in caplog.records if record.name == spans.logger.name]
    assert 0 < len(told) <= 6
    assert len({str(record.exc_info) for record in told}) == len(told)


class Hanging(SpanExporter):
    """Takes no span before it is let go."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        self.asked.set()
        self.go.wait()


async def test_an_exporter_that_hangs_holds_up_no_run(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Hanging()
    batches = BatchSpanProcessor(
        exporter, max_queue_size=4, max_export_batch_size=2, schedule_delay_millis=10
    )
    _provided(monkeypatch, batches)
    try:
        first = await ow.run_workflow(order, "a")
        worker = await start_worker(order)
        await first.result(60)
        await eventually(exporter.asked.is_set)  # from here on nothing leaves
        runs = await ow.run_workflows(order, ["b"] * 20)
        assert [await run.result(60) for run in runs] == ["b"] * 20
        await worker.stop()
    finally:
        exporter.go.set()
        await asyncio.to_thread(batches.shutdown)


async def test_what_is_not_sampled_is_no_span_and_its_executions_follow(
    ow: OpenWorkflow, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    run = await ow.run_workflow(order, "a")
    await _done(start_worker, run, order)

    assert await run.result(1) == "a"
    assert () == exporter.get_finished_spans()


async def test_a_line_of_the_log_names_the_span_it_was_written_in(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    log, handler = logging.getLogger("theirs"), Keep()
    handler.setFormatter(logs.JsonFormatter())
    log.addHandler(handler)

    async def talk() -> None:
        log.error("in a step")

    @workflow
    async def talking(input: None, step: Step) -> None:
        log.error("in a workflow")
        await step.run("talk", talk)

    try:
        log.error("outside")
        await _done(start_worker, await ow.run_workflow(talking), talking)
    finally:
        log.removeHandler(handler)

    outside, in_run, in_step = map(json.loads, lines)
    assert "trace_id" not in outside
    for line, name in ((in_run, "workflow_run.execute"), (in_step, "step_attempt.execute")):
        span = traced.one(name).context
        assert line["trace_id"] == f"{span.trace_id:032x}"
        assert line["span_id"] == f"{span.span_id:016x}"


async def test_an_execution_that_loses_its_claim_is_stale_and_no_span_is_left_open(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    begun = asyncio.Event()

    async def long() -> None:
        begun.set()
        await asyncio.sleep(3600)

    @workflow
    async def slow(input: None, step: Step) -> None:
        await step.run("long", long)

    run = await ow.run_workflow(slow)
    worker = await start_worker(slow)
    await begun.wait()
    await run.cancel()
    await eventually(lambda: traced.named("workflow_run.execute"))
    await worker.stop()

    executed = traced.one("workflow_run.execute")
    assert dict(executed.attributes or {})["openworkflow.execution.outcome"] == "stale"
    assert [event.name for event in traced.one("step_attempt.execute").events] == ["interrupted"]
    assert (await ow.get_workflow_run(run.id)).status is RunStatus.CANCELED


async def test_the_blocking_client_starts_runs_in_the_trace_of_its_thread(
    database_url: str, traced: Traced
) -> None:
    def view() -> Any:
        with trace.get_tracer("theirs").start_as_current_span("request") as request:
            with OpenWorkflow.sync(database_url) as ow:
                ow.run_workflow(order, "a")
            return request.get_span_context()

    request = await asyncio.to_thread(view)

    assert traced.one("workflow_run.create").parent == request


async def test_a_run_under_a_limit_is_linked_too(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    @workflow(limits=[Limit(1)])
    async def limited(number: int, step: Step) -> int:
        return number

    runs = await ow.run_workflows(limited, [1, 2])
    worker = await start_worker(limited)
    assert [await run.result(60) for run in runs] == [1, 2]
    await worker.stop()

    created = traced.one("workflow_run.create").context.span_id
    for run in runs:
        last = traced.named("workflow_run.execute", run_id=str(run.id))[-1]
        assert [link.context.span_id for link in last.links] == [created]


async def test_a_span_around_a_step_is_its_parent_in_a_thread_too(
    ow: OpenWorkflow, start_worker: StartWorker, traced: Traced
) -> None:
    @workflow
    def around(card: str, step: SyncStep) -> str:
        with trace.get_tracer("theirs").start_as_current_span("around"):
            return step.run("charge", charge_in_thread, card)

    run = await ow.run_workflow(around, "a")
    await _done(start_worker, run, around)

    outer, inner = traced.one("around"), traced.one("step_attempt.execute")
    assert outer.parent == traced.one("workflow_run.execute").context
    assert inner.parent == outer.context
    assert traced.one("their call").parent == inner.context
