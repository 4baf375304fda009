"""The channels of wake-ups, named after schema and namespace."""

import hashlib


def work_channel(schema: str, namespace_id: str) -> str:
    """The channel of new work: workers listen here, and the operator for a fleet at zero."""
    return f"openworkflow_work_{_digest(schema, namespace_id)}"


def done_channel(schema: str, namespace_id: str) -> str:
    """The channel of finished runs: those who wait for results listen here."""
    return f"openworkflow_done_{_digest(schema, namespace_id)}"


def events_channel(schema: str, namespace_id: str) -> str:
    """The channel of events that runs emit: those who follow a run listen here."""
    return f"openworkflow_events_{_digest(schema, namespace_id)}"


def _digest(schema: str, namespace_id: str) -> str:
    return hashlib.sha256(f"{schema}.{namespace_id}".encode()).hexdigest()[:16]
