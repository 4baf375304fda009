"""Starts runs and follows them, from any process."""

from openworkflow.client.client import OpenWorkflow
from openworkflow.client.handle import RunDetails, RunHandle

__all__ = ["OpenWorkflow", "RunDetails", "RunHandle"]
