"""The custom resource's definition, as far as it can be judged without an API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
CRD: dict[str, Any] = yaml.safe_load((ROOT / "manifests/crd.yaml").read_text())
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))

CONDITIONS = {
    "Ready",
    "DatabaseReachable",
    "WorkersAvailable",
    "ScalingActive",
    "ScalingLimited",
    "RetentionActive",
    "SchedulesStored",
    "Paused",
}


def test_every_list_map_and_string_is_bounded() -> None:
    """Unbounded input makes the validation rules unaffordable, and the operator's memory too."""
    unbounded = {path for path, schema in _schemas(SCHEMA) if not _is_bounded(schema)}

    assert {".apiVersion", ".kind"} == unbounded


def test_every_field_of_spec_and_status_explains_itself() -> None:
    spec = SCHEMA["properties"]["spec"]["properties"]
    sections = [spec, SCHEMA["properties"]["status"]["properties"]]
    sections += [spec[name]["properties"] for name in ("database", "scaling", "rollout")]

    silent = [
        name for section in sections for name in section if "description" not in section[name]
    ]

    assert [] == silent


def test_durations_are_whole_seconds_and_nothing_is_a_float() -> None:
    assert [] == [path for path, schema in _schemas(SCHEMA) if schema.get("type") == "number"]


def test_every_rule_has_a_message_that_says_what_is_allowed() -> None:
    rules = [rule for _, schema in _schemas(SCHEMA) for rule in schema.get(RULES, [])]

    assert len(rules) >= 12
    assert [] == [rule["rule"] for rule in rules if "must" not in rule.get("message", "")]


def test_the_summary_of_conditions_is_documented() -> None:
    text = SCHEMA["properties"]["status"]["properties"]["conditions"]["description"]

    assert [] == [name for name in CONDITIONS if name not in text]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_valid_and_hold_no_unknown_field(path: Path) -> None:
    made = list(yaml.safe_load_all(path.read_text()))
    ours = [each for each in made if each["kind"] == "WorkflowNamespace"]
    assert ours
    for resource in ours:
        jsonschema.Draft202012Validator(_closed(SCHEMA)).validate(resource)


def test_an_unknown_field_would_be_noticed_by_these_tests() -> None:
    resource = yaml.safe_load(EXAMPLES[0].read_text())
    resource["spec"]["worker"]["serviceAccountName"] = "admin"

    with pytest.raises(jsonschema.ValidationError, match="serviceAccountName"):
        jsonschema.Draft202012Validator(_closed(SCHEMA)).validate(resource)


RULES = "x-kubernetes-validations"
OPEN = "x-kubernetes-preserve-unknown-fields"


def _schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _schemas(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from _schemas(schema[keyword], f"{path}[]")


def _is_bounded(schema: dict[str, Any]) -> bool:
    match schema.get("type"):
        case "array":
            return "maxItems" in schema
        case "string":
            known = schema.get("format") == "date-time" or "enum" in schema
            return known or "maxLength" in schema
        case "object":
            return "additionalProperties" not in schema or "maxProperties" in schema
        case _:
            return True


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown fields refused, as `kubectl` does with strict validation."""
    closed = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if "properties" in schema:
        closed["properties"] = {k: _closed(v) for k, v in schema["properties"].items()}
        is_metadata = schema["properties"].keys() >= {"apiVersion", "kind", "metadata"}
        if is_metadata:
            closed["properties"]["metadata"] = {"type": "object"}
        if not schema.get(OPEN):
            closed["additionalProperties"] = False
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            closed[keyword] = _closed(schema[keyword])
    return closed
