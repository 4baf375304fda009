"""Durable workflows on PostgreSQL.

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from openworkflow.backend.backend import BackendPostgres, Page, RunFilter
from openworkflow.backend.pausing import Pause
from openworkflow.client import OpenWorkflow, RunDetails, RunHandle
from openworkflow.client.blocking.client import SyncOpenWorkflow
from openworkflow.client.blocking.handle import SyncRunHandle
from openworkflow.client.bulk import BulkProgress
from openworkflow.core.cron import Cron
from openworkflow.core.errors import (
    BackendError,
    ChildFailed,
    ChildTimeout,
    CodecError,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    InputValidationError,
    InvalidBuildState,
    InvalidRunState,
    MapFailed,
    NonDeterminism,
    NonRetryableError,
    OpenWorkflowError,
    PayloadTooLarge,
    PayloadUnreadable,
    PoisonPill,
    ResultTimeout,
    RunExists,
    RunNotFound,
    ScheduleNotFound,
    SerializationError,
    SignalTimeout,
    Stalled,
    StepAborted,
    StepFailed,
    StepTimeout,
    TooManyEvents,
    TooManySteps,
    UndoFailed,
    WorkflowCanceled,
    WorkflowFailed,
)
from openworkflow.core.explanation import Explanation
from openworkflow.core.extras import extra_missing
from openworkflow.core.failure import Failure
from openworkflow.core.guesses import answer_temporal
from openworkflow.core.limits import Limit, Rate
from openworkflow.core.progress import RunEvent, RunProgress
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.schedule import Schedule
from openworkflow.core.step_attempt import StepAttempt, StepKind, StepStatus
from openworkflow.core.undo import Undo
from openworkflow.core.unique import Debounce, Unique
from openworkflow.core.workflow import DurableFunction, Workflow, step, workflow
from openworkflow.core.workflow_run import RunStatus, WorkflowRun
from openworkflow.engine.child_handle import ChildHandle
from openworkflow.engine.current import CurrentStep, current_step
from openworkflow.engine.step import Step, SyncStep
from openworkflow.worker.worker import Worker

if TYPE_CHECKING:
    from openworkflow.web import dashboard

try:
    __version__ = version("openworkflow-fleet")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = [
    "BackendError",
    "BackendPostgres",
    "BulkProgress",
    "ChildFailed",
    "ChildHandle",
    "ChildTimeout",
    "CodecError",
    "ConfigurationError",
    "ConnectionLost",
    "Cron",
    "CurrentStep",
    "DeadlineExceeded",
    "Debounce",
    "DurableFunction",
    "Explanation",
    "Failure",
    "InputValidationError",
    "InvalidBuildState",
    "InvalidRunState",
    "Limit",
    "MapFailed",
    "NonDeterminism",
    "NonRetryableError",
    "OpenWorkflow",
    "OpenWorkflowError",
    "Page",
    "Pause",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "PoisonPill",
    "Rate",
    "ResultTimeout",
    "RetryPolicy",
    "RunDetails",
    "RunEvent",
    "RunExists",
    "RunFilter",
    "RunHandle",
    "RunNotFound",
    "RunProgress",
    "RunStatus",
    "Schedule",
    "ScheduleNotFound",
    "SerializationError",
    "SignalTimeout",
    "Stalled",
    "Step",
    "StepAborted",
    "StepAttempt",
    "StepFailed",
    "StepKind",
    "StepStatus",
    "StepTimeout",
    "SyncOpenWorkflow",
    "SyncRunHandle",
    "SyncStep",
    "TooManyEvents",
    "TooManySteps",
    "Undo",
    "UndoFailed",
    "Unique",
    "Worker",
    "Workflow",
    "WorkflowCanceled",
    "WorkflowFailed",
    "WorkflowRun",
    "current_step",
    "dashboard",
    "step",
    "workflow",
]

answer_temporal(workflow)


def __getattr__(name: str) -> Any:
    """The dashboard, which needs an extra that others do not have."""
    if name != "dashboard":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from openworkflow.web import dashboard
    except ImportError as error:
        raise extra_missing("the dashboard", "dashboard", error) from None
    return dashboard
