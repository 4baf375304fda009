"""The numbers of one visit, for the metrics. Pure."""

from __future__ import annotations

from typing import Any

from openworkflow_operator.decide.observation import Observation
from openworkflow_operator.decide.planner import Plan
from openworkflow_operator.report.facts import Facts
from openworkflow_operator.report.metrics import FleetReport


def fleet_report(facts: Facts, decided: Plan, status: dict[str, Any]) -> FleetReport:
    """What to show of the resource from now on."""
    resource = facts.resource
    report: dict[str, Any] = {
        "namespace_id": resource.namespace_id,
        "desired": facts.desired,
        "wanted": decided.next.wanted,
        "ready": sum(1 for pod in facts.pods if pod.ready and not pod.terminating),
        "maximum": resource.scaling.max_replicas,
        "target_latency": resource.scaling.target_latency_seconds,
        "conditions": {c["type"]: c["status"] for c in status["conditions"]},
    }
    report["builds"] = {
        build["id"]: (build.get("newRunsPercent", 0), build.get("runsLeft", 0))
        for build in status.get("builds", ())
    }
    if isinstance(facts.database, Observation):
        demand = facts.database.demand
        report |= {
            "due": demand.due + demand.unserved,
            "running": demand.running,
            "waking": demand.waking,
            "oldest_due_age": max(demand.oldest_due_age, demand.oldest_unserved_age),
            "last_observation": facts.database.at.timestamp(),
            "next_wake": facts.database.next_wake_seconds,
        }
    return FleetReport(**report)
