"""All WorkflowNamespaces at once."""

from __future__ import annotations

from tools.dashboards.grafana import (
    GREEN,
    RED,
    YELLOW,
    Dashboard,
    Panel,
    Query,
    Row,
    graph,
    rate,
    stacked,
    stat,
)
from tools.dashboards.shared import (
    BAD,
    BOTH,
    BY,
    ENDED,
    FLEET,
    IS_READY,
    KUBE_NAMESPACE,
    LEFT,
    NAME,
    OLDEST,
    READY_WORKERS,
    RUNNING,
    SCALING,
    SHARES,
    SLOTS,
    WAITING,
    WORKERS_BY_BUILD,
    WORKFLOW_NAMESPACE,
    failure_ratio,
    fleets,
)

SCALED = "openworkflow_scale_operations_total"
EACH = (
    ("Due", "short", f"sum by ({BY}) ({fleets('due_runs')})"),
    ("Oldest due", "s", f"max by ({BY}) ({fleets('oldest_due_age_seconds')})"),
    ("Running", "short", f"sum by ({BY}) ({fleets('running_runs')})"),
    ("Ready", "short", f"sum by ({BY}) ({fleets('ready_replicas')})"),
    ("Desired", "short", f"sum by ({BY}) ({fleets('desired_replicas')})"),
    ("Most", "short", f"sum by ({BY}) ({fleets('max_replicas')})"),
    ("Ended per s", "short", rate(ENDED, f"{FLEET}, {BOTH}", BY)),
    ("Failed", "percentunit", failure_ratio(FLEET, BY)),
)


def table() -> Panel:
    """A line for each namespace that leads to its dashboard."""
    letters = "ABCDEFGH"
    link = (
        "/d/openworkflow-namespace?var-datasource=${datasource}"
        "&var-kube_namespace=${__data.fields.kube_namespace}"
        "&var-workflow_namespace=${__data.fields.workflow_namespace}&${__url_time_range}"
    )
    units = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }
        for name, unit, _ in EACH
    ]
    linked = {
        "matcher": {"id": "byName", "options": "workflow_namespace"},
        "properties": [{"id": "links", "value": [{"title": "Open the namespace", "url": link}]}],
    }
    names = {f"Value #{letter}": name for letter, (name, *_) in zip(letters, EACH, strict=True)}
    return Panel(
        "Namespaces",
        "Each WorkflowNamespace as it is now. Its name leads to its own dashboard.",
        "short",
        tuple(Query(expr, name) for name, _, expr in EACH),
        "table",
        width=24,
        height=9,
        extra={
            "overrides": [*units, linked],
            "transformations": [
                {"id": "merge", "options": {}},
                {
                    "id": "organize",
                    "options": {"excludeByName": {"Time": True}, "renameByName": names},
                },
            ],
        },
    )


PAGE = Dashboard(
    "fleet",
    "Fleet",
    "All WorkflowNamespaces: what waits, what runs, and whether the fleets follow.",
    (
        Row(
            "Now",
            (
                stat(
                    "Firing alerts",
                    "Alerts of OpenWorkflow that fire.",
                    "short",
                    'sum(ALERTS{alertname=~"OpenWorkflow.+", alertstate="firing"}) or vector(0)',
                    steps=BAD,
                ),
                stat(
                    "Not ready",
                    "WorkflowNamespaces whose condition Ready is not True.",
                    "short",
                    f"count({fleets('condition', IS_READY)} == 0) or vector(0)",
                    steps=BAD,
                ),
                OLDEST,
                WAITING,
                RUNNING,
                READY_WORKERS,
                table(),
            ),
        ),
        Row(
            "Load",
            (
                graph(
                    "Runs and slots",
                    "Due and running runs beside the slots of all workers.",
                    "short",
                    Query(f"sum({fleets('due_runs')}) or vector(0)", "due"),
                    Query(f"sum({fleets('running_runs')}) or vector(0)", "running"),
                    *SLOTS,
                ),
                graph(
                    "Oldest due run",
                    "How long the first run in line waits, as a part of its target: 1 is the"
                    " target, and an alert follows at 2.",
                    "percentunit",
                    Query(
                        f"{fleets('oldest_due_age_seconds')} / {fleets('target_latency_seconds')}",
                        NAME,
                    ),
                    steps=((GREEN, None), (YELLOW, 1), (RED, 2)),
                    custom={"thresholdsStyle": {"mode": "line"}},
                ),
                SCALING,
                stacked(
                    "Ended runs",
                    "Runs that ended, per second.",
                    "ops",
                    Query(rate(ENDED, f"{FLEET}, {BOTH}", "outcome"), "{{outcome}}"),
                ),
                graph(
                    "Failed runs",
                    "Part of the ended runs that failed, after all their retries.",
                    "percentunit",
                    Query(failure_ratio(FLEET, f"{BY}, namespace_id"), "{{namespace_id}}"),
                ),
                graph(
                    "Scale operations",
                    "Changes of the number of worker pods.",
                    "short",
                    Query(
                        f"sum by (direction) (increase({SCALED}{{{FLEET}}}[$__rate_interval]))"
                        " or vector(0)",
                        "{{direction}}",
                    ),
                ),
            ),
        ),
        Row("Builds", (WORKERS_BY_BUILD, SHARES, LEFT)),
    ),
    (KUBE_NAMESPACE, WORKFLOW_NAMESPACE),
)
