"""The options of a worker: how much it runs at once, for how long, and as which build.

The limits of each option are checked here, once; settings.py has the same for the environment.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict, get_args

from openworkflow.backend.records import ClaimRequest, claim_key
from openworkflow.codecs.payloads import Codecs, Payloads, checked_codecs
from openworkflow.core.build_policy import BuildPolicy
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import valid_build_id
from openworkflow.core.registry import Registry
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT, MOST_PAYLOAD_LIMIT
from openworkflow.core.shown import shown
from openworkflow.core.step_attempt import DEFAULT_MAX_STEP_ATTEMPTS
from openworkflow.core.workflow_run import DEFAULT_RESIDENT_RUNS, DEFAULT_REST_SECONDS
from openworkflow.telemetry.metrics import Metrics
from openworkflow.telemetry.tracing import Traces
from openworkflow.worker.claimer import trusted_crashes

_RANGES: dict[str, tuple[float, float]] = {
    "concurrency": (1, 10_000),
    "payload_limit": (1, MOST_PAYLOAD_LIMIT),
    "max_crashes": (1, 1_000_000),
    "max_step_attempts": (0, 1_000_000),
    "lease (seconds)": (1, 86_400),
    "drain (seconds)": (0, 86_400),
    "rest (seconds)": (0, 86_400),
    "resident": (0, 1_000_000),
}


class WorkerSettings(TypedDict, total=False):
    """Options of `OpenWorkflow.new_worker`, apart from `workflows` and `concurrency`: those of
    WorkerOptions, and two of Worker.
    """

    lease: timedelta
    drain: timedelta
    rest: timedelta
    resident: int
    payload_limit: int
    max_crashes: int
    max_step_attempts: int
    build_id: str | None
    build_policy: BuildPolicy
    worker_id: str | None
    metrics: Metrics | None
    traces: Traces
    codec: Codecs | None


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of Worker, checked; raises ConfigurationError for a value out of range."""

    concurrency: int = 100
    lease: timedelta = timedelta(seconds=30)
    drain: timedelta = timedelta(seconds=30)
    rest: timedelta = timedelta(seconds=DEFAULT_REST_SECONDS)
    resident: int = DEFAULT_RESIDENT_RUNS
    payload_limit: int = DEFAULT_PAYLOAD_LIMIT
    max_crashes: int = 5
    max_step_attempts: int = DEFAULT_MAX_STEP_ATTEMPTS
    build_id: str | None = None
    build_policy: BuildPolicy = "moving"
    traces: Traces = "links"
    codec: Codecs | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name.partition(" ")[0])
            kind = timedelta if name.endswith("(seconds)") else int
            number = value.total_seconds() if isinstance(value, timedelta) else value
            if type(value) is not kind or not least <= number <= most:
                told = f"{number:g}" if isinstance(value, timedelta) else shown(value)
                meant = " as a timedelta" if kind is timedelta else ""
                raise ConfigurationError(
                    f"{name} must be between {least:g} and {most:g}{meant}, not {told}"
                )
        if self.build_id:
            valid_build_id(self.build_id)
        checked_codecs(self.codec)
        if self.traces not in get_args(Traces):
            known = ", ".join(get_args(Traces))
            raise ConfigurationError(f"traces must be one of {known}, not {shown(self.traces)}")

    @property
    def batch(self) -> int:
        """The most runs of a claim, and writes of a flush."""
        return max(1, self.concurrency // (4 if self.concurrency > 40 else 2))

    def payloads(self, namespace_id: str) -> Payloads:
        """What seals and opens the values of the namespace."""
        return Payloads(checked_codecs(self.codec), namespace_id, self.payload_limit)

    def claim_request(self, registry: Registry, *, traced: bool = False) -> ClaimRequest:
        """Which runs a worker of these workflows asks for, and whether with their traces."""
        keys = {workflow: claim_key(*workflow.key) for workflow in registry}
        return ClaimRequest(
            self.batch,
            list(keys.values()),
            self.build_id or None,
            pinned_keys=[
                key
                for workflow, key in keys.items()
                if self.build_id and (workflow.build_policy or self.build_policy) == "pinned"
            ],
            trusted_crashes=trusted_crashes(self.max_crashes),
            deadlines={
                key: workflow.deadline.total_seconds()
                for workflow, key in keys.items()
                if workflow.deadline is not None
            },
            limited=any(workflow.limits for workflow in keys),
            priorities={key: each.priority for each, key in keys.items() if each.priority},
            traced=traced,
        )
