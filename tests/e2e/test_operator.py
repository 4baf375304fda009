"""The operator dies, and the fleets do not notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import SYSTEM, Tenant


def lease(tenant: Tenant) -> dict[str, str]:
    """Who leads, and since when it was last heard of."""
    found = tenant.cluster.get("-n", SYSTEM, "lease", "openworkflow-operator")
    spec: dict[str, str] = found.get("spec", {})
    return spec


def pod(tenant: Tenant, name: str) -> Any:
    return tenant.cluster.get("-n", SYSTEM, "pod", name)


@pytest.mark.parametrize("end", ["delete", "SIGKILL"])
async def test_another_operator_leads_and_wakes_the_fleet(
    tenant: Tenant,
    kill: Callable[[Any, str], None],
    report: Callable[[str, float], None],
    end: str,
) -> None:
    tenant.declare(scaling={"pollPeriodSeconds": 1})
    ready = ("rollout", "status", "-n", SYSTEM, "deployment/openworkflow-operator")
    await tenant.until(lambda: tenant.cluster.kubectl(*ready), "both operators are ready")
    first = await tenant.until(lambda: lease(tenant).get("holderIdentity"), "there is a leader")
    if end == "delete":
        tenant.cluster.kubectl("-n", SYSTEM, "delete", "pod", first, "--wait=false")
    else:
        kill(pod(tenant, first), "openworkflow-operator")
    gone, last = time.monotonic(), lease(tenant)
    run = await tenant.ow.run_workflow("fulfil", {"number": 1, "delivery": "1ms"})

    # A killed program comes back in its pod under the same name, so it may be the one to lead.
    await tenant.until(
        lambda: (
            lease(tenant)["renewTime"] > last["renewTime"]
            and lease(tenant)["holderIdentity"] not in ("", first if end == "delete" else "")
        ),
        "an operator leads",
    )
    report(f"from {end} of the leading operator to the next one", time.monotonic() - gone)
    assert "receipt-1 delivered" == await run.result(timeout="90s")
    report("and to the end of a run that needed a fleet", time.monotonic() - gone)
    if end == "SIGKILL":
        killed = pod(tenant, first)["status"]["containerStatuses"][0]
        assert (1, 137) == (killed["restartCount"], killed["lastState"]["terminated"]["exitCode"])
