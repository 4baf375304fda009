"""The operator itself, and the databases as it and the workers see them."""

from __future__ import annotations

from tools.dashboards.grafana import (
    GREEN,
    RED,
    YELLOW,
    Dashboard,
    Query,
    Row,
    graph,
    quantiles,
    rate,
    stacked,
    stat,
)
from tools.dashboards.shared import FLEET, KUBE_NAMESPACE, NAME, WORKFLOW_NAMESPACE, fleets

#: The process metrics of operators: those of other programs have the same names.
IS_OPERATOR = "and on (job, instance) openworkflow_operator_leader"
NOW = Row(
    "Now",
    (
        stat(
            "Leaders",
            "Operators that act: one, whatever the number of replicas.",
            "short",
            "sum(openworkflow_operator_leader) or vector(0)",
            steps=((RED, None), (GREEN, 1), (RED, 2)),
        ),
        stat(
            "Operators",
            "Operators that are scraped, standbys included.",
            "short",
            "count(openworkflow_operator_build_info) or vector(0)",
        ),
        stat(
            "Resources",
            "WorkflowNamespaces that the operator looks after.",
            "short",
            "count(openworkflow_namespace_desired_replicas) or vector(0)",
        ),
        stat(
            "Databases",
            "Databases that are looked at: distinct URLs and schemas.",
            "short",
            "sum(openworkflow_observed_databases)",
        ),
        stat(
            "Queue",
            "Resources that wait to be reconciled.",
            "short",
            "sum(openworkflow_reconcile_queue_depth)",
        ),
        stat(
            "Since the last full reconciliation",
            "All resources are listed and reconciled every minute; a pod that stops is restarted.",
            "s",
            "time() - max(openworkflow_last_resync_timestamp_seconds > 0)",
            steps=((GREEN, None), (YELLOW, 120), (RED, 300)),
        ),
    ),
)
RECONCILIATIONS = Row(
    "Reconciliations",
    (
        stacked(
            "Reconciliations",
            "By result: refused and failed are the API server's, bug is the operator's own.",
            "ops",
            Query(rate("openworkflow_reconcile_total", "", "result"), "{{result}}"),
        ),
        graph(
            "Duration of a reconciliation",
            "With everything it waits for.",
            "s",
            *quantiles("openworkflow_reconcile_seconds", ""),
        ),
        stacked(
            "API requests",
            "Calls of the Kubernetes API by verb and code; none is a request without an answer.",
            "ops",
            Query(
                rate("openworkflow_kubernetes_requests_total", "", "verb, code"),
                "{{verb}} {{code}}",
            ),
        ),
        graph(
            "CPU of the operators",
            "Cores in use.",
            "short",
            Query(
                f"rate(process_cpu_seconds_total[$__rate_interval]) {IS_OPERATOR}", "{{instance}}"
            ),
        ),
        graph(
            "Memory of the operators",
            "Resident bytes; they grow with the resources and pods that are watched.",
            "bytes",
            Query(f"process_resident_memory_bytes {IS_OPERATOR}", "{{instance}}"),
        ),
    ),
)
LOOKS = Row(
    "Databases, seen by the operator",
    (
        graph(
            "Duration of a look",
            "One statement counts the runs of all resources of a database.",
            "s",
            *quantiles("openworkflow_observation_seconds", ""),
        ),
        graph(
            "Failed looks",
            "By reason; the fleets of such a database are held.",
            "ops",
            Query(
                f"{rate('openworkflow_observation_errors_total', '', 'reason')} or vector(0)",
                "{{reason}}",
            ),
        ),
        graph(
            "Age of the last look",
            "Beyond two minutes an alert follows.",
            "s",
            Query(f"time() - ({fleets('last_observation_timestamp_seconds')} > 0)", NAME),
        ),
        graph(
            "Deleted runs",
            "Finished runs whose retention was over, per second.",
            "ops",
            Query(
                f"{rate('openworkflow_pruned_runs_total', FLEET)} or vector(0)",
                "deleted",
            ),
        ),
        graph(
            "Failed deletions",
            "Walks that failed, by reason; each is tried again five minutes later.",
            "ops",
            Query(
                f"{rate('openworkflow_prune_errors_total', '', 'reason')} or vector(0)",
                "{{reason}}",
            ),
        ),
    ),
)
WRITES = Row(
    "Databases, seen by the workers",
    (
        graph(
            "Duration of a flush",
            "Round trip and commit of the writes that were ready together.",
            "s",
            *quantiles("openworkflow_flush_seconds", FLEET),
        ),
        graph(
            "Commits",
            "Flushes per second.",
            "ops",
            Query(
                rate("openworkflow_flush_seconds_count", FLEET, "namespace_id"), "{{namespace_id}}"
            ),
        ),
        graph(
            "Writes of a commit",
            "How many writes share a commit, in the mean; grows with the load.",
            "short",
            Query(
                f"{rate('openworkflow_flush_size_sum', FLEET, 'namespace_id')}"
                f" / {rate('openworkflow_flush_size_count', FLEET, 'namespace_id')}",
                "{{namespace_id}}",
            ),
        ),
        graph(
            "Runs of a claim",
            "How many runs a claim brings, in the mean.",
            "short",
            Query(
                f"{rate('openworkflow_claim_batch_size_sum', FLEET, 'namespace_id')}"
                f" / {rate('openworkflow_claim_batch_size_count', FLEET, 'namespace_id')}",
                "{{namespace_id}}",
            ),
        ),
        graph(
            "Failed requests",
            "By kind, as in docs/reliability.md: a broken connection, tables that refuse, ...",
            "ops",
            Query(
                rate("openworkflow_database_errors_total", FLEET, "namespace_id, kind"),
                "{{namespace_id}} {{kind}}",
            ),
        ),
    ),
)
PAGE = Dashboard(
    "operator",
    "Operator and database",
    "Reconciliations and requests, and the databases as the operator and the workers see them.",
    (NOW, RECONCILIATIONS, LOOKS, WRITES),
    (KUBE_NAMESPACE, WORKFLOW_NAMESPACE),
)
