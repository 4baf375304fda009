"""Traces of a run: who started it, its executions, its steps, and what they call.

    pip install 'openworkflow-fleet[otel]' opentelemetry-sdk
    DATABASE_URL=postgresql://... python examples/tracing.py

An application sets a provider that sends its spans somewhere. This one keeps them, and prints them
as trees: a span below the one that it is in, and what it is linked to beside it.
"""

import asyncio
import os
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow

tracer = trace.get_tracer("shop")


async def charge(card: str) -> str:
    with tracer.start_as_current_span("POST /charges"):  # as an instrumented HTTP client makes it
        return f"receipt for {len(card)} digits"


@workflow
async def billing(card: str, step: Step) -> str:
    return await step.run("charge", charge, card)


@workflow
async def order(card: str, step: Step) -> str:
    return await step.run_workflow("bill", billing, card)


async def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # before workers start

    backend = await BackendPostgres.connect(os.environ["DATABASE_URL"])
    ow = OpenWorkflow(backend)
    worker = ow.new_worker(workflows=[order, billing])
    await worker.start()
    with tracer.start_as_current_span("GET /checkout"):
        run = await ow.run_workflow(order, "4111111111111111")
    print(await run.result())
    await worker.stop()
    await backend.stop()
    show(exporter.get_finished_spans())


def show(spans: Sequence[ReadableSpan]) -> None:
    """Print each trace; the oldest first."""
    names = {span.context.span_id: _name(span) for span in spans}
    ordered = sorted(spans, key=lambda span: span.start_time or 0)

    def branch(span: ReadableSpan, depth: int) -> None:
        linked = [names[link.context.span_id] for link in span.links]
        print("  " * depth + _name(span) + (f"  <- {', '.join(linked)}" if linked else ""))
        for other in ordered:
            if other.parent is not None and other.parent.span_id == span.context.span_id:
                branch(other, depth + 1)

    for span in ordered:
        if span.parent is None:
            branch(span, 0)


def _name(span: ReadableSpan) -> str:
    about = dict(span.attributes or {})
    step = about.get("openworkflow.step.name") or about.get("openworkflow.workflow.name")
    return f"{span.name} {step}" if step else span.name


if __name__ == "__main__":
    asyncio.run(main())
