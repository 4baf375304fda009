"""Everything that a status is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openworkflow_operator.api.spec import Key, WorkflowNamespace
from openworkflow_operator.decide.faults import Fault
from openworkflow_operator.decide.installations import Installation
from openworkflow_operator.decide.observation import DatabaseView, Pruning
from openworkflow_operator.decide.pods import Pod
from openworkflow_operator.decide.rollout import Phase
from openworkflow_operator.decide.scaling import Limit
from openworkflow_operator.decide.schedules import Kept
from openworkflow_operator.decide.usage import Usage

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What was observed and decided at one visit."""

    resource: WorkflowNamespace
    database: DatabaseView | None
    deployment: Object | None
    pods: Sequence[Pod]
    desired: int
    pods_are_known: bool = True
    """Whether there are no others than these `pods`."""
    limit: Limit = Limit.NONE
    faults: Sequence[Fault] = ()
    """Objects that could not be made, changed or deleted."""
    conflict: Key | None = None
    """The older resource with the same database and namespace id."""
    waits: bool = False
    """Whether it is not known yet if there is an older resource, so that nothing was changed."""
    installation: Installation | None = None
    """Who keeps this status."""
    scaled: bool = False
    pruning: Pruning | None = None
    scheduled: Kept | None = None
    """How it went to store the schedules."""
    phases: Mapping[str, tuple[Phase, str]] = field(default_factory=dict)
    """Where each build stands, and why; the desired one first."""
    fleets: Mapping[str, Object] = field(default_factory=dict)
    """The Deployments of the builds."""
    template: str = ""
    """The id of the template that `worker` asks for."""
    usage: Usage | None = None
    """How full its pods were, where the cluster tells."""
    is_fresh: bool = False
    """This operator has not looked at the database yet: what the one before it saw stands."""

    @property
    def wanted(self) -> Object | None:
        """The Deployment of that template."""
        return self.fleets.get(self.template) if self.phases else self.deployment
