"""What the executions of one worker have in common."""

from concurrent.futures import Executor
from dataclasses import dataclass

from openworkflow.engine.journal import Journal
from openworkflow.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """What all executions of a worker share."""

    journal: Journal
    metrics: Metrics
    step_threads: Executor
    workflow_threads: Executor
    payload_limit: int
