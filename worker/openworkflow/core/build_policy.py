"""Which builds may go on with the runs of a workflow. Pure."""

from typing import Literal, get_args

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.shown import shown

BuildPolicy = Literal["pinned", "moving"]


def valid_build_policy(policy: BuildPolicy | None, name: str) -> BuildPolicy | None:
    """Return `policy` if a workflow can have it. Raises ConfigurationError."""
    if policy is not None and policy not in get_args(BuildPolicy):
        raise ConfigurationError(
            f"workflow {name!r}: build_policy must be 'pinned' or 'moving', not {shown(policy)}"
        )
    return policy
