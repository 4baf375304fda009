"""Starts runs and follows them, from any process."""

from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunDetails, RunHandle
from openworkflow.engine.request import ManyRunsOptions, RunOptions

__all__ = ["ManyRunsOptions", "OpenWorkflow", "RunDetails", "RunHandle", "RunOptions"]
