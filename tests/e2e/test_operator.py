"""The operator dies, and the fleets do not notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Tenant

SYSTEM = "openworkflow-system"


def leader(tenant: Tenant) -> str:
    """The pod that holds the Lease."""
    lease = tenant.cluster.get("-n", SYSTEM, "lease", "openworkflow-operator")
    holder: str = lease.get("spec", {}).get("holderIdentity", "")
    return holder


def pod(tenant: Tenant, name: str) -> Any:
    return tenant.cluster.get("-n", SYSTEM, "pod", name)


@pytest.mark.parametrize("end", ["delete", "SIGKILL"])
async def test_the_second_operator_takes_over_and_wakes_the_fleet(
    tenant: Tenant,
    kill: Callable[[Any, str], None],
    report: Callable[[str, float], None],
    end: str,
) -> None:
    tenant.declare(scaling={"pollPeriodSeconds": 1}, worker={"concurrency": 5})
    ready = ("rollout", "status", "-n", SYSTEM, "deployment/openworkflow-operator")
    await tenant.until(lambda: tenant.cluster.kubectl(*ready), "both operators are ready")
    first = await tenant.until(lambda: leader(tenant), "there is a leader")
    if end == "delete":
        tenant.cluster.kubectl("-n", SYSTEM, "delete", "pod", first, "--wait=false")
    else:
        kill(pod(tenant, first), "openworkflow-operator")
    gone = time.monotonic()
    run = await tenant.ow.run_workflow("fulfil", {"number": 1, "delivery": "1ms"})

    # A killed container comes back in its pod, under the same name: it may lead again.
    await tenant.until(
        lambda: leader(tenant) and (end == "SIGKILL" or leader(tenant) != first), "it is replaced"
    )
    report(f"from {end} of the leading operator to the next leader", time.monotonic() - gone)
    assert "receipt-1 delivered" == await run.result(timeout="90s")
    report("and to the end of a run that needed a fleet", time.monotonic() - gone)
