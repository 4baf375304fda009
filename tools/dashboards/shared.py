"""What several dashboards show alike."""

from __future__ import annotations

from typing import Final

from tools.dashboards.grafana import (
    GREEN,
    RED,
    YELLOW,
    Query,
    Variable,
    rate,
    stacked,
    stat,
    steps,
)

IS_TRUE: Final = 'status="True"'
IS_READY: Final = f'type="Ready", {IS_TRUE}'
FLEET: Final = 'kube_namespace=~"$kube_namespace", workflow_namespace=~"$workflow_namespace"'
WORK: Final = FLEET + ', workflow=~"$workflow"'
BY: Final = "kube_namespace, workflow_namespace"
NAME: Final = "{{kube_namespace}}/{{workflow_namespace}}"
ENDED: Final = "openworkflow_workflow_run_finished_total"
FAILED: Final = 'outcome="failed"'
BOTH: Final = 'outcome=~"succeeded|failed"'
BAD: Final = ((GREEN, None), (RED, 1))


def fleets(metric: str, labels: str = "") -> str:
    """The operator's numbers of the chosen namespaces."""
    return f"openworkflow_namespace_{metric}{{{', '.join(filter(None, (FLEET, labels)))}}}"


def failure_ratio(labels: str, by: str) -> str:
    """Failed of ended runs; nothing where none ended."""
    return f"{rate(ENDED, f'{labels}, {FAILED}', by)} / {rate(ENDED, f'{labels}, {BOTH}', by)}"


KUBE_NAMESPACE = Variable(
    "kube_namespace", "Kubernetes namespace", "openworkflow_namespace_desired_replicas"
)
WORKFLOW_NAMESPACE = Variable(
    "workflow_namespace",
    "WorkflowNamespace",
    'openworkflow_namespace_desired_replicas{kube_namespace=~"$kube_namespace"}',
)
WORKFLOW = Variable("workflow", "Workflow", f"openworkflow_workflow_run_claimed_total{{{FLEET}}}")
WAITING = stat(
    "Due",
    "Runs that wait for a worker. The operator counts no further than what can change a decision.",
    "short",
    f"sum({fleets('due_runs')}) or vector(0)",
)
RUNNING = stat(
    "Running", "Runs that a worker holds.", "short", f"sum({fleets('running_runs')}) or vector(0)"
)
READY_WORKERS = stat(
    "Ready workers",
    "Worker pods that are ready.",
    "short",
    f"sum({fleets('ready_replicas')}) or vector(0)",
)
OLDEST = stat(
    "Oldest due run",
    "How long the first run in line waits, at worst; yellow beyond the default target of 30 s, red"
    " beyond twice that.",
    "s",
    f"max({fleets('oldest_due_age_seconds')}) or vector(0)",
    steps=((GREEN, None), (YELLOW, 30), (RED, 60)),
)
SLOTS = (
    Query(f"sum(openworkflow_worker_slots{{{FLEET}}}) or vector(0)", "slots"),
    Query(f"sum(openworkflow_worker_slots_used{{{FLEET}}}) or vector(0)", "slots in use"),
)
WORKERS_BY_BUILD = stacked(
    "Workers by build",
    "Workers that are scraped, by the build of the code they run; without OPENWORKFLOW_BUILD_ID, "
    "by the version of OpenWorkflow alone.",
    "short",
    Query(
        f"count by ({BY}, namespace_id, build_id, version) (openworkflow_build_info{{{FLEET}}})",
        "{{namespace_id}} {{build_id}} ({{version}})",
    ),
)
SHARES = stacked(
    "New runs by build",
    "Share of the new runs that each build takes, of fleets with pinned rollouts.",
    "percent",
    Query(fleets("build_new_runs_percent"), f"{NAME} {{{{build_id}}}}"),
)
LEFT = stacked(
    "Runs left on builds",
    "Due and running runs that only this build may finish, of fleets with pinned rollouts.",
    "short",
    Query(fleets("build_unfinished_runs"), f"{NAME} {{{{build_id}}}}"),
)
SCALING = steps(
    "Worker pods",
    "Asked for, ready, and needed by the runs without any limit.",
    "short",
    Query(f"sum({fleets('desired_replicas')})", "desired"),
    Query(f"sum({fleets('ready_replicas')})", "ready"),
    Query(f"sum({fleets('wanted_replicas')})", "wanted"),
    Query(f"sum({fleets('max_replicas')})", "most allowed"),
)
