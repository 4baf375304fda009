"""Durable workflows on PostgreSQL.

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
"""

from importlib.metadata import PackageNotFoundError, version

from openworkflow.backend.backend import BackendPostgres
from openworkflow.client import OpenWorkflow, RunHandle
from openworkflow.core.cron import Cron
from openworkflow.core.errors import (
    ChildFailed,
    ChildTimeout,
    MapFailed,
    NonRetryableError,
    OpenWorkflowError,
    ResultTimeout,
    RunExists,
    SignalTimeout,
    StepFailed,
    StepTimeout,
    UndoFailed,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.limits import Limit, Rate
from openworkflow.core.progress import RunEvent, RunProgress
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.undo import Undo
from openworkflow.core.unique import Debounce, Unique
from openworkflow.core.workflow import Workflow, step, workflow
from openworkflow.core.workflow_run import RunStatus
from openworkflow.engine.child_handle import ChildHandle
from openworkflow.engine.current import current_step
from openworkflow.engine.step import Step, SyncStep
from openworkflow.worker.worker import Worker

try:
    __version__ = version("openworkflow-fleet")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = [
    "BackendPostgres",
    "ChildFailed",
    "ChildHandle",
    "ChildTimeout",
    "Cron",
    "Debounce",
    "Limit",
    "MapFailed",
    "NonRetryableError",
    "OpenWorkflow",
    "OpenWorkflowError",
    "Rate",
    "ResultTimeout",
    "RetryPolicy",
    "RunEvent",
    "RunExists",
    "RunHandle",
    "RunProgress",
    "RunStatus",
    "SignalTimeout",
    "Step",
    "StepFailed",
    "StepTimeout",
    "SyncStep",
    "Undo",
    "UndoFailed",
    "Unique",
    "Worker",
    "Workflow",
    "WorkflowCanceled",
    "WorkflowFailed",
    "current_step",
    "step",
    "workflow",
]
