"""The custom resource, typed.

The API server has validated and defaulted it; this module only gives it a shape. Parts that go
into the pod as they are stay plain data. A field that is missing, since a CRD from before it is
installed, has the default of its class here; a test compares these with the CRD.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self

from openworkflow_operator.api.managers import managers_of
from openworkflow_operator.api.names import PAUSED_ANNOTATION
from openworkflow_operator.api.nesting import shallow
from openworkflow_operator.api.schedules import ScheduleEntry

Object = Mapping[str, Any]


class Key(NamedTuple):
    """Which resource: its Kubernetes namespace and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ScalingMode(StrEnum):
    """Who decides the number of pods."""

    AUTO = "Auto"
    EXTERNAL = "External"


class Monitoring(StrEnum):
    """Whether the fleet gets a ServiceMonitor."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class Database:
    """Where the runs are."""

    secret_name: str
    secret_key: str = "DATABASE_URL"  # noqa: S105  the name of a key
    schema: str = "public"

    @classmethod
    def parse(cls, data: Object) -> Self:
        """From `spec.database`."""
        reference = data["secretRef"]
        return cls(
            secret_name=reference["name"],
            **_given(reference, secret_key="key"),  # noqa: S106  the name of a key
            **_given(data, schema="schema"),
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """The worker pods."""

    image: str
    workflows: Sequence[str] = ()
    concurrency: int = 10
    drain_timeout_seconds: int = 120
    raw: Object = field(default_factory=dict, compare=False)
    """The section as it is, for what goes into the pod unchanged."""

    @classmethod
    def parse(cls, data: Object) -> Self:
        """From `spec.worker`."""
        data = shallow(data)  # parts of it may be any JSON, which has to be written again
        return cls(
            image=data["image"],
            workflows=tuple(data.get("workflows", ())),
            raw=data,
            **_given(data, concurrency="concurrency", drain_timeout_seconds="drainTimeoutSeconds"),
        )


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the number of pods follows the runs. Durations are seconds."""

    mode: ScalingMode = ScalingMode.AUTO
    min_replicas: int = 0
    max_replicas: int = 10
    target_latency_seconds: int = 30
    poll_period_seconds: int = 5
    scale_in_delay_seconds: int = 120
    activation_lead_seconds: int = 20

    @classmethod
    def parse(cls, data: Object) -> Self:
        """From `spec.scaling`."""
        return cls(
            **_given(
                data,
                min_replicas="minReplicas",
                max_replicas="maxReplicas",
                target_latency_seconds="targetLatencySeconds",
                poll_period_seconds="pollPeriodSeconds",
                scale_in_delay_seconds="scaleInDelaySeconds",
                activation_lead_seconds="activationLeadSeconds",
            ),
            **_given(data, ScalingMode, mode="mode"),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a ramp: this share, for so many seconds."""

    share: int
    pause_seconds: int


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many of the first runs of a new build may fail."""

    first_runs: int
    max_percent: int


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new build has to pass, and what becomes of the runs that an old one leaves."""

    canary: str | None = None
    """The workflow whose run has to succeed on the new build."""
    canary_timeout_seconds: int = 300
    ramp: Sequence[Step] = ()
    failure_limit: FailureLimit | None = None
    """Judges the runs of the first step of the ramp."""
    leftover_seconds: int | None = None
    """After this time runs of an old build are not waited for any more; None waits forever."""
    leftover: Literal["move", "fail"] = "move"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change of the pods is rolled out."""

    max_surge: int | str = "25%"
    max_unavailable: int | str = 0
    progress_deadline_seconds: int = 600
    is_pinned: bool = False
    """Every change is a build of its own, and runs stay with the one that began them."""
    gate: Gate = field(default_factory=Gate)

    @classmethod
    def parse(cls, data: Object) -> Self:
        """From `spec.rollout`."""
        return cls(
            is_pinned=data.get("strategy") == "Pinned",
            gate=_gate(data),
            **_given(
                data,
                max_surge="maxSurge",
                max_unavailable="maxUnavailable",
                progress_deadline_seconds="progressDeadlineSeconds",
            ),
        )


def _gate(data: Object) -> Gate:
    canary, leftover = data.get("canary") or {}, data.get("leftoverRuns") or {}
    limit = data.get("failureLimit")
    return Gate(
        canary=canary.get("workflow"),
        **_given(canary, canary_timeout_seconds="timeoutSeconds"),
        ramp=tuple(Step(s["share"], s["pauseSeconds"]) for s in data.get("ramp") or ()),
        failure_limit=limit and FailureLimit(limit["firstRuns"], limit["maxPercent"]),
        leftover_seconds=leftover.get("afterSeconds"),
        leftover="fail" if leftover.get("action") == "Fail" else "move",
    )


@dataclass(frozen=True, slots=True)
class WorkflowNamespace:
    """One tenant, as desired by its owner."""

    key: Key
    uid: str
    generation: int
    created_at: str
    """RFC 3339, as the API server wrote it: these sort by time."""
    namespace_id: str
    database: Database
    worker: Worker
    scaling: Scaling = field(default_factory=Scaling)
    rollout: Rollout = field(default_factory=Rollout)
    replicas: int | None = None
    paused: bool = False
    monitoring: Monitoring = Monitoring.AUTO
    network_policy: bool = False
    retention_seconds: Mapping[str, int] = field(default_factory=dict)
    """By status of a finished run; a missing one is kept forever."""
    schedules: Sequence[ScheduleEntry] = ()
    status: Object = field(default_factory=dict)
    """What the operator last reported."""
    managers: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Who set `replicas`, `paused` and `worker` last, where that is known."""
    build: str | None = None
    """Which build `worker` is, where every change is one; not part of the resource."""

    @property
    def rank(self) -> tuple[str, str]:
        """The older of two resources has the lower one; it never changes."""
        return (self.created_at, self.uid)

    @classmethod
    def parse(cls, resource: Object) -> Self:
        """From the object as the API server gives it.

        Raises KeyError, TypeError, AttributeError or ValueError for what the schema would refuse.
        """
        metadata, spec = resource["metadata"], resource["spec"]
        annotations = metadata.get("annotations") or {}
        return cls(
            key=Key(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            created_at=metadata.get("creationTimestamp", ""),
            namespace_id=spec.get("namespaceId") or metadata["name"],
            database=Database.parse(spec["database"]),
            worker=Worker.parse(spec["worker"]),
            scaling=Scaling.parse(spec.get("scaling") or {}),
            rollout=Rollout.parse(spec.get("rollout") or {}),
            replicas=spec.get("replicas"),
            paused=bool(spec.get("paused")) or annotations.get(PAUSED_ANNOTATION) == "true",
            **_given(spec, Monitoring, monitoring="monitoring"),
            network_policy=spec.get("networkPolicy") == "Enabled",
            retention_seconds=_retention(spec.get("retention") or {}),
            schedules=tuple(ScheduleEntry.parse(entry) for entry in spec.get("schedules") or ()),
            status=resource.get("status") or {},
            managers=managers_of(metadata),
        )


def _retention(data: Object) -> dict[str, int]:
    statuses = ("succeeded", "failed", "canceled")
    return {s: data[f"{s}Seconds"] for s in statuses if data.get(f"{s}Seconds") is not None}


def _given(
    data: Object, convert: Callable[[Any], Any] = lambda value: value, **names: str
) -> dict[str, Any]:
    """The fields that are given, by their names here; the others keep their defaults."""
    return {field: convert(data[name]) for field, name in names.items() if name in data}
