"""Tests of workflows on a real PostgreSQL, in which time passes at once.

    async def test_order(ow_env):
        run = await ow_env.run(order, Order(...))
        assert run.output == Receipt(...)

The fixture `ow_env` comes with the package; `environment()` is the same without pytest. FakeStep is
for tests of a workflow function alone, without a database.
"""

from openworkflow.testing.blocking import BlockingEnvironment, BlockingRun
from openworkflow.testing.environment import Environment
from openworkflow.testing.fake import FakeStep, FakeSyncStep
from openworkflow.testing.fake_base import ContinuedAsNew
from openworkflow.testing.kit import environment
from openworkflow.testing.opened import NeverEnds
from openworkflow.testing.plans import Call
from openworkflow.testing.runs import NoSuchStep, Run, RunStep

__all__ = [
    "BlockingEnvironment",
    "BlockingRun",
    "Call",
    "ContinuedAsNew",
    "Environment",
    "FakeStep",
    "FakeSyncStep",
    "NeverEnds",
    "NoSuchStep",
    "Run",
    "RunStep",
    "environment",
]
