"""What one visit of a resource works with, found out once, and what follows from it.

A visit begins when the credentials were read, and ends with the status that it writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.cluster.credentials import Credentials
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.dsn import Dsn
from openworkflow_operator.database.observatory import Target
from openworkflow_operator.decide.build_planner import plan_builds, unproven_build
from openworkflow_operator.decide.planner import Observed, Plan, Recollection, plan, policy_of
from openworkflow_operator.decide.rivals import Identity
from openworkflow_operator.decide.scaling import MOST_COUNTED, observation_cap
from openworkflow_operator.desired.workload import build_of
from openworkflow_operator.report.build_status import Phases


@dataclass(slots=True)
class Remembered:
    """What is remembered of a resource between visits."""

    uid: str
    """Uid of the resource: another one of the same name has nothing to do with it."""
    past: Recollection = field(default_factory=Recollection)
    written_at: float = 0.0
    conflict: Key | None = None
    phases: Phases = field(default_factory=dict)
    """Where each build stood when nothing was being changed in the database."""
    has_looked: bool = False
    """Whether this operator has tried the resource's database."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of one resource."""

    resource: WorkflowNamespace
    build: str
    """The build that the section `worker` stands for, whether or not builds are pinned."""
    credentials: Credentials
    remembered: Remembered

    @classmethod
    def begin(
        cls, resource: WorkflowNamespace, credentials: Credentials, remembered: Remembered
    ) -> Self:
        """Begin one."""
        return cls(resource, build_of(resource), credentials, remembered)

    @property
    def key(self) -> Key:
        """Which resource."""
        return self.resource.key

    @property
    def pinned_build(self) -> str | None:
        """The build, where runs are pinned to theirs; None where there are no builds."""
        return self.build if self.resource.rollout.is_pinned else None

    @property
    def place(self) -> tuple[Dsn, str, str] | None:
        """Where its runs are, if that is known: how to connect, the schema and the namespace id."""
        dsn, resource = self.credentials.dsn, self.resource
        return None if dsn is None else (dsn, resource.database.schema, resource.namespace_id)

    def target(self, replicas_limit: int) -> Target | None:
        """What to look at in the database, if it is known where that is."""
        if self.credentials.dsn is None:
            return None
        resource, scaling, gate = self.resource, self.resource.scaling, self.resource.rollout.gate
        policy = policy_of(resource, replicas_limit)
        build = self.pinned_build
        slots = policy.max_replicas * policy.concurrency
        question = Question(
            namespace_id=resource.namespace_id,
            due_limit=observation_cap(policy, self.remembered.past.memory.service_seconds),
            # Every build may have as many.
            running_limit=4 * MOST_COUNTED if build else min(2 * slots + 1, 4 * MOST_COUNTED),
            lead_seconds=scaling.activation_lead_seconds,
            build=build,
            canary=gate.canary,
            first_runs=gate.failure_limit.first_runs if gate.failure_limit else 0,
        )
        return Target(
            dsn=self.credentials.dsn,
            schema=resource.database.schema,
            question=question,
            poll_seconds=scaling.poll_period_seconds,
            idle=self.remembered.past.target == 0,
        )

    @property
    def spared_build(self) -> str | None:
        """The build whose runs are not to be deleted yet, since they prove it."""
        build = self.pinned_build
        return build and unproven_build(build, self.remembered.past)

    def decide(self, observed: Observed, past: Recollection, now: float) -> Plan:
        """Decide what to change."""
        return (plan_builds if self.resource.rollout.is_pinned else plan)(observed, past, now)


def identity_of(resource: WorkflowNamespace, credentials: Credentials) -> Identity | None:
    """What no two resources may share; None while it is not known."""
    dsn = credentials.dsn
    return None if dsn is None else (dsn.place, resource.database.schema, resource.namespace_id)
