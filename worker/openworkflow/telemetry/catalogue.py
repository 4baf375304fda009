"""The metrics of a worker: what there is, and what each means."""

from dataclasses import dataclass, replace

# fmt: off
SHORT = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10, 30, 60, 300, 1800, 3600,
)
"""Seconds of steps, waits and flushes: a millisecond to an hour."""
LONG = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400, 604_800)
"""Seconds of executions: 5 milliseconds to a week."""
# fmt: on
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
RUN_OUTCOMES = (
    "succeeded",
    "failed",
    "undoing",
    "canceled",
    "retried",
    "parked",
    "released",
    "continued",
    "lost",
)
STEP_OUTCOMES = ("succeeded", "failed")
#: A wait for a limit is counted when it is over: it begins in the database.
WAIT_KINDS = ("sleep", "signal", "child", "limit", "retry", "rate")
ERROR_KINDS = (
    "connection",
    "collision",
    "size",
    "tables",
    "refused",
    "defect",
    "heartbeat",
    "history",
    "schedule",
)


@dataclass(frozen=True, slots=True)
class Described:
    """One metric of the catalogue; `labels` come after namespace_id."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE = (
    Described("openworkflow_workflow_run_claimed_total", "counter", "Runs claimed.", ("workflow",)),
    Described(
        "openworkflow_workflow_run_finished_total",
        "counter",
        "Executions of runs ended, by outcome; only succeeded, failed and canceled end the run.",
        ("workflow", "outcome"),
    ),
    Described(
        "openworkflow_workflow_run_seconds",
        "histogram",
        "Seconds of one execution of a run, from claim to its recorded end.",
        ("workflow",),
        LONG,
    ),
    Described(
        "openworkflow_workflow_run_schedule_to_start_seconds",
        "histogram",
        "Seconds from when a run was due until it was claimed.",
        ("workflow",),
        SHORT,
    ),
    Described(
        "openworkflow_step_attempt_finished_total",
        "counter",
        "Step attempts recorded, by outcome.",
        ("workflow", "outcome"),
    ),
    Described(
        "openworkflow_step_attempt_seconds",
        "histogram",
        "Seconds of step attempts, from their start until they were sent to be recorded.",
        ("workflow",),
        SHORT,
    ),
    Described(
        "openworkflow_waits_begun_total",
        "counter",
        "Waits that runs have begun, by what they wait for; for a limit, once that is over.",
        ("workflow", "kind"),
    ),
    Described("openworkflow_worker_slots_used", "gauge", "Slots that hold a run."),
    Described("openworkflow_worker_slots", "gauge", "Slots of this worker."),
    Described(
        "openworkflow_worker_runs_resting",
        "gauge",
        "Runs that wait in memory without a slot; at most as many as there are slots.",
    ),
    Described(
        "openworkflow_worker_runs_resident",
        "gauge",
        "Parked runs whose executions stay in memory, without a claim.",
    ),
    Described(
        "openworkflow_worker_runs_resumed_total",
        "counter",
        "Parked runs that went on from memory, without a replay.",
        ("workflow",),
    ),
    Described(
        "openworkflow_threads_left_behind",
        "gauge",
        "Threads inside sync functions that passed their time limit or were interrupted.",
    ),
    Described("openworkflow_claim_batch_size", "histogram", "Runs got by a claim.", (), SIZES),
    Described("openworkflow_flush_size", "histogram", "Writes that shared a commit.", (), SIZES),
    Described(
        "openworkflow_flush_seconds",
        "histogram",
        "Seconds of a flush, round trip and commit.",
        (),
        SHORT,
    ),
    Described(
        "openworkflow_claim_lost_total",
        "counter",
        "Executions stopped because their run was canceled or claimed by another worker.",
        ("workflow",),
    ),
    Described(
        "openworkflow_workflow_run_crashed_total",
        "counter",
        "Claims of runs that lost a worker and have recorded no step since.",
        ("workflow",),
    ),
    Described(
        "openworkflow_undo_failed_total",
        "counter",
        "Runs that ended with steps that could not be undone; their errors name them.",
        ("workflow",),
    ),
    Described(
        "openworkflow_heartbeat_last_timestamp_seconds",
        "gauge",
        "Unix time of the last heartbeat that reached the database; 0 before the first.",
    ),
    Described(
        "openworkflow_database_errors_total", "counter", "Failed database requests.", ("kind",)
    ),
    Described(
        "openworkflow_writes_refused",
        "gauge",
        "Writes that the database refuses for now, and that are sent again until it takes them.",
    ),
    Described("openworkflow_schedules_late", "gauge", "Schedules whose next run is overdue."),
    Described("openworkflow_limit_slots_used", "gauge", "Runs that have a slot.", ("limit",)),
    Described("openworkflow_limit_runs_waiting", "gauge", "Due runs that wait.", ("limit",)),
    Described(
        "openworkflow_event_loop_lag_seconds",
        "gauge",
        "How late the event loop was at worst in the last minute; high where code blocks it.",
    ),
    Described(
        "openworkflow_build_info",
        "gauge",
        "Always 1; the labels say which code this worker runs.",
        ("version", "build_id"),
    ),
)


def catalogue() -> tuple[Described, ...]:
    """Every metric there is, with all its labels, for the documentation."""
    return tuple(replace(d, labels=("namespace_id", *d.labels)) for d in CATALOGUE)
