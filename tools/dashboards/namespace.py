"""One WorkflowNamespace."""

from __future__ import annotations

from tools.dashboards.grafana import (
    GREEN,
    RED,
    Dashboard,
    Panel,
    Query,
    Row,
    graph,
    quantiles,
    rate,
    stacked,
    stat,
)
from tools.dashboards.shared import (
    ENDED,
    FLEET,
    IS_READY,
    IS_TRUE,
    KUBE_NAMESPACE,
    LEFT,
    OLDEST,
    READY_WORKERS,
    RUNNING,
    SCALING,
    SHARES,
    WAITING,
    WORK,
    WORKERS_BY_BUILD,
    WORKFLOW,
    WORKFLOW_NAMESPACE,
    failure_ratio,
    fleets,
)

WAIT_SECONDS = "openworkflow_workflow_run_schedule_to_start_seconds"
WORKFLOWS = Row(
    "Workflows",
    (
        graph(
            "Claimed runs",
            "Claims per second: first ones, and those after a sleep, a retry or a crash.",
            "ops",
            Query(
                rate("openworkflow_workflow_run_claimed_total", WORK, "workflow"), "{{workflow}}"
            ),
        ),
        stacked(
            "Executions by outcome",
            "Only succeeded and failed end a run; parked ones sleep or wait, retried ones come"
            " back, released ones were handed back by a drain, lost ones belong to another worker.",
            "ops",
            Query(rate(ENDED, WORK, "outcome"), "{{outcome}}"),
        ),
        graph(
            "Failed runs",
            "Part of the ended runs that failed, after all their retries.",
            "percentunit",
            Query(failure_ratio(WORK, "workflow"), "{{workflow}}"),
        ),
        graph(
            "Wait for a worker",
            "From when a run was due until it was claimed; grows when workers are too few.",
            "s",
            *quantiles(WAIT_SECONDS, WORK),
        ),
        graph(
            "Execution time",
            "Of one execution, from claim to its recorded end.",
            "s",
            *quantiles("openworkflow_workflow_run_seconds", WORK),
        ),
        Panel(
            "Execution times",
            "How many executions took how long.",
            "short",
            (Query(rate("openworkflow_workflow_run_seconds_bucket", WORK, "le"), "{{le}}"),),
            "heatmap",
            options={"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Blues"}},
        ),
    ),
)
STEPS = Row(
    "Steps",
    (
        stacked(
            "Step attempts",
            "Recorded attempts per second; a failed one may be followed by another.",
            "ops",
            Query(
                rate("openworkflow_step_attempt_finished_total", WORK, "workflow, outcome"),
                "{{workflow}} {{outcome}}",
            ),
        ),
        graph(
            "Step time",
            "From the start of an attempt until it was sent to be recorded.",
            "s",
            *quantiles("openworkflow_step_attempt_seconds", WORK),
        ),
        graph(
            "Lost claims and crashes",
            "Executions stopped because their claim was gone, and claims of runs whose worker was"
            " lost.",
            "ops",
            Query(rate("openworkflow_claim_lost_total", WORK, "workflow"), "lost {{workflow}}"),
            Query(
                rate("openworkflow_workflow_run_crashed_total", WORK, "workflow"),
                "crashed {{workflow}}",
            ),
        ),
    ),
)
WORKERS = Row(
    "Workers",
    (
        SCALING,
        graph(
            "Used slots by worker",
            "Part of the slots that hold a run; all at 1 means that workers are too few.",
            "percentunit",
            Query(
                f"openworkflow_worker_slots_used{{{FLEET}}} / openworkflow_worker_slots{{{FLEET}}}",
                "{{instance}}",
            ),
        ),
        graph(
            "CPU by worker",
            "Cores in use. One is all that the event loop can have; threads may add to it.",
            "short",
            Query(rate("process_cpu_seconds_total", FLEET, "instance"), "{{instance}}"),
        ),
        graph(
            "Memory by worker",
            "Resident bytes; beyond the limit in spec.worker.resources the kernel ends the pod.",
            "bytes",
            Query(f"process_resident_memory_bytes{{{FLEET}}}", "{{instance}}"),
        ),
        graph(
            "Event loop lag",
            "How late the event loop was at worst in the last minute; high where code blocks it.",
            "s",
            Query(f"openworkflow_event_loop_lag_seconds{{{FLEET}}}", "{{instance}}"),
        ),
        graph(
            "Time since the last heartbeat",
            "Beyond the lease, 30 s by default, a worker loses its runs.",
            "s",
            Query(
                f"time() - (openworkflow_heartbeat_last_timestamp_seconds{{{FLEET}}} > 0)",
                "{{instance}}",
            ),
        ),
        Panel(
            "Conditions",
            "The conditions of the WorkflowNamespace; docs/operator.md has all reasons.",
            "short",
            (Query(f"max by (type) ({fleets('condition', IS_TRUE)})", "{{type}}"),),
            "state-timeline",
            options={"showValue": "never", "mergeValues": True},
            defaults={
                "mappings": [
                    {"type": "value", "options": {"0": {"text": "not true", "color": "orange"}}},
                    {"type": "value", "options": {"1": {"text": "True", "color": "blue"}}},
                ]
            },
        ),
    ),
)
PAGE = Dashboard(
    "namespace",
    "Namespace",
    "One tenant: its workflows, its steps, its workers and its builds.",
    (
        Row(
            "Now",
            (
                stat(
                    "Ready",
                    "Whether the condition Ready is True, of all that are chosen.",
                    "bool_yes_no",
                    f"min({fleets('condition', IS_READY)})",
                    steps=((RED, None), (GREEN, 1)),
                ),
                OLDEST,
                WAITING,
                RUNNING,
                READY_WORKERS,
                stat(
                    "Next wake-up",
                    "When the next sleeping run is due; empty when none is known.",
                    "dateTimeFromNow",
                    f"1000 * min({fleets('next_wake_timestamp_seconds')})",
                ),
            ),
        ),
        WORKFLOWS,
        STEPS,
        WORKERS,
        Row("Builds", (WORKERS_BY_BUILD, SHARES, LEFT)),
    ),
    (KUBE_NAMESPACE, WORKFLOW_NAMESPACE, WORKFLOW),
)
