"""Writes what in the charts follows from something else, so that it cannot go astray:

the copy of the CRD, `values.schema.json` and the README's table from `values.yaml`, and the plain
install in `manifests/install.yaml` from the chart itself.

    python -m tools.chart            # write
    python -m tools.chart --check    # fail if something is not as it would be written
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHARTS = ROOT / "charts"
INSTALL_HEAD = """\
# The operator without Helm, for all namespaces; made from the chart by `make chart`.
# The database of each WorkflowNamespace is yours to name and to migrate.
apiVersion: v1
kind: Namespace
metadata:
  name: openworkflow-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""

#: What a value's type does not say by itself.
#: The names of namespaces, each once.
NAMESPACES: dict[str, Any] = {
    "uniqueItems": True,
    "items": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
}
OWN_LABELS: list[str] = [
    *(f"app.kubernetes.io/{name}" for name in ("component", "instance", "managed-by", "name")),
    *("app.kubernetes.io/part-of", "app.kubernetes.io/version", "helm.sh/chart"),
]
RULES: dict[str, dict[str, Any]] = {
    "nameOverride": {"pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"},
    # A Service's name begins with a letter.
    "fullnameOverride": {"pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"},
    # A Deployment selects by the chart's own, and Helm knows by them what is its own.
    "commonLabels": {"propertyNames": {"not": {"enum": OWN_LABELS}}},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.digest": {"pattern": "^(sha256:[a-f0-9]{64})?$"},
    "workerImage.digest": {"pattern": "^(sha256:[a-f0-9]{64})?$"},
    "replicas": {"minimum": 0, "maximum": 5},
    "operator.logLevel": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
    "operator.leaseSeconds": {"minimum": 2, "maximum": 3600},
    "operator.maxReplicas": {"minimum": 1, "maximum": 1000},
    "operator.resyncSeconds": {"minimum": 1, "maximum": 3600},
    "operator.namespaces": NAMESPACES,
    "rbac.secrets": {"enum": ["cluster", "namespaced", "none"]},
    "rbac.secretNamespaces": NAMESPACES,
    "database.secretKey": {"minLength": 1},
    "database.schema": {"minLength": 1},
    "migrations.activeDeadlineSeconds": {"minimum": 1},
    "dashboard.namespaces": {"minItems": 1, "items": {"type": "string", "minLength": 1}},
    "dashboard.secretKey": {"minLength": 1},
    "dashboard.tokens.secretKey": {"minLength": 1},
    "dashboard.proxy.from": {"items": {"type": "string", "minLength": 1}},
    "dashboard.proxy.role": {"enum": ["viewer", "operator", "admin"]},
    "dashboard.openid.secretKey": {"minLength": 1},
    "dashboard.openid.claim": {"minLength": 1},
    "dashboard.openid.roles": {"additionalProperties": {"enum": ["viewer", "operator", "admin"]}},
    "dashboard.replicas": {"minimum": 0, "maximum": 5},
    "imagePullSecrets": {"items": {"type": "object", "required": ["name"]}},
    "extraObjects": {"items": {"type": ["object", "string"]}},
    # Of the tenant's chart: the API server knows the details better.
    "name": {"maxLength": 40},
}
#: Maps whose keys are the user's.
FREE = frozenset(
    {
        "affinity",
        "annotations",
        "commonLabels",
        "labels",
        "nodeSelector",
        "podAnnotations",
        "podLabels",
        "resources",
        "roles",
        "spec",
    }
)
#: Of these, what the keys stand for is text: `--set a=1` is a number, which the API server refuses
#: when half of the release is installed.
TEXTS = frozenset(
    {"annotations", "commonLabels", "labels", "nodeSelector", "podAnnotations", "podLabels"}
)
LABEL: dict[str, Any] = {
    "type": "string",
    "maxLength": 63,
    "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
}


def schema_of(values: Any, path: str = "") -> dict[str, Any]:
    """The JSON schema that accepts these values and their like, and no unknown key."""
    name = path.rpartition(".")[2]
    schema: dict[str, Any]
    match values:
        case bool():
            schema = {"type": "boolean"}
        case int():
            schema = {"type": "integer"}
        case str():
            schema = {"type": "string"}
        case list():
            schema = {"type": "array"}
        case dict() if name in FREE:
            schema = {"type": "object"}
            if name in TEXTS:
                is_label = not name.lower().endswith("annotations")
                schema["additionalProperties"] = LABEL if is_label else {"type": "string"}
        case dict():
            below = {
                key: schema_of(value, f"{path}.{key}".strip(".")) for key, value in values.items()
            }
            schema = {"type": "object", "additionalProperties": False, "properties": below}
            # One that is null is gone, and templates would end at what they seek in it.
            if sections := [key for key, value in below.items() if "properties" in value]:
                schema["required"] = sections
        case _:
            raise TypeError(f"{path}: {values!r}")
    return schema | RULES.get(path, {})


def schema(chart: Path) -> str:
    """`values.schema.json`."""
    found = schema_of(yaml.safe_load((chart / "values.yaml").read_text()))
    found["properties"]["global"] = {"type": "object"}  # Helm passes it to every chart
    return (
        json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **found}, indent=2) + "\n"
    )


def described(chart: Path) -> Iterator[tuple[str, str, str]]:
    """Key, default and description of each value that has one, in the order of the file."""
    lines = (chart / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    path: list[str] = []
    comment: list[str] = []
    for line in lines:
        if match := re.match(r" *# -- (.*)", line):
            comment.append(match[1])
        elif match := re.match(r"( *)([A-Za-z]+):", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if comment:
                value = values
                for key in path:
                    value = value[key]
                yield ".".join(path), json.dumps(value), " ".join(comment)
            comment = []


def readme(chart: Path) -> str:
    """The chart's README with the table written anew."""
    text = (chart / "README.md").read_text()
    rows = [f"| `{key}` | `{default}` | {text} |" for key, default, text in described(chart)]
    table = "\n".join(["| value | default | |", "|---|---|---|", *rows])
    head, _, rest = text.partition("<!-- values -->\n")
    _, _, tail = rest.partition("<!-- end of values -->")
    return f"{head}<!-- values -->\n{table}\n<!-- end of values -->{tail}"


def install() -> str:
    """`manifests/install.yaml`: CRD, permissions and the operator."""
    command = ["helm", "template", "openworkflow", str(CHARTS / "openworkflow")]
    command += ["--namespace", "openworkflow-system", "--set", "devPostgres.enabled=false"]
    command += ["--set", "replicas=2", "--no-hooks"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    documents = [each for each in yaml.safe_load_all(done.stdout) if each]
    for document in documents:
        _without_helm(document)
    shown = [yaml.safe_dump(document, sort_keys=False, width=100) for document in documents]
    return "---\n".join([INSTALL_HEAD, *shown])


def _without_helm(document: Any) -> None:
    """Take away the labels that say who manages an object: here nobody does."""
    if isinstance(document, dict):
        for labels in (document.get("labels"), document.get("annotations")):
            if isinstance(labels, dict):
                for label in (
                    "helm.sh/chart",
                    "app.kubernetes.io/managed-by",
                    "helm.sh/resource-policy",
                ):
                    labels.pop(label, None)
        for value in document.values():
            _without_helm(value)
    elif isinstance(document, list):
        for value in document:
            _without_helm(value)


def generated() -> dict[Path, str]:
    """Every file that is made, with its content."""
    files = {
        CHARTS / "openworkflow/crd/workflownamespaces.yaml": (
            ROOT / "manifests/crd.yaml"
        ).read_text()
    }
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        files[chart / "values.schema.json"] = schema(chart)
        files[chart / "README.md"] = readme(chart)
    for path, text in files.items():  # the install is made from the files above
        if "--check" not in sys.argv:
            path.write_text(text)
    return files | {ROOT / "manifests/install.yaml": install()}


def main() -> int:
    """Write the files, or tell which are not as they should be."""
    files = generated()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make chart`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
