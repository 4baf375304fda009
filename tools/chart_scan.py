"""Runs checkov on what the chart renders for production, and holds its findings to known ones.

    make chart-scan

An exception is one check on one kind of object, with its reason. One that no longer occurs fails
as well: the list says what is true.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CHART: Final = Path(__file__).parents[1] / "charts/openworkflow"
_DIGEST: Final = "sha256:" + "a" * 64
_PRODUCTION: Final = (
    "replicas=2,networkPolicy.enabled=true,database.existingSecret=db,"
    f"image.digest={_DIGEST},workerImage.digest={_DIGEST},"
    "dashboard.enabled=true,dashboard.tokens.existingSecret=tokens"
)
_NO_CPU_LIMIT = "a limit throttles a process that is behind; the request gives it its share"
_NO_NETWORK = "it lives for seconds and listens nowhere; where it may go is the cluster's to say"
_FROM_ENVIRONMENT = "DATABASE_URL is read from the environment, as every tool does"
EXCEPTIONS: Final[dict[tuple[str, str], str]] = {
    ("CKV_K8S_11", "Deployment"): _NO_CPU_LIMIT,
    ("CKV_K8S_11", "Job"): _NO_CPU_LIMIT,
    ("CKV_K8S_11", "Pod"): _NO_CPU_LIMIT,
    ("CKV_K8S_38", "Deployment"): "the operator calls the API server; no other pod has a token",
    ("CKV_K8S_35", "Job"): _FROM_ENVIRONMENT,
    ("CKV_K8S_35", "Deployment"): _FROM_ENVIRONMENT,  # the dashboard's
    ("CKV_K8S_8", "Pod"): "the pod of `helm test` runs once",
    ("CKV_K8S_9", "Pod"): "the pod of `helm test` runs once",
    ("CKV2_K8S_6", "Pod"): _NO_NETWORK,  # checkov says Pod for those of the Job, too
}


def findings(checkov: str) -> set[tuple[str, str]]:
    """Check and kind of every failure."""
    command = ["helm", "template", "openworkflow", str(CHART), "--set", _PRODUCTION]
    command += ["--namespace", "openworkflow-system"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rendered.yaml"
        path.write_text(made)
        command = [checkov, "--file", str(path), "--framework", "kubernetes", "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(done.stdout)
    if not report["summary"]["passed"] or report["summary"]["parsing_errors"]:
        raise SystemExit(f"checkov read nothing: {report['summary']}")
    failed = report["results"]["failed_checks"]
    return {(each["check_id"], each["resource"].partition(".")[0]) for each in failed}


def main() -> int:
    """Say what is new and what is gone."""
    found = findings(sys.argv[1] if len(sys.argv) > 1 else "checkov")
    for check, kind in sorted(found - EXCEPTIONS.keys()):
        print(f"{check} fails for a {kind}: mend it, or give the reason in tools/chart_scan.py")
    for check, kind in sorted(EXCEPTIONS.keys() - found):
        print(f"{check} no longer fails for a {kind}: take its exception out of {Path(__file__)}")
    return 1 if found ^ EXCEPTIONS.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
