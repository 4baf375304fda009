"""The dashboards that the chart ships: as their source says, portable, and explained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.observability.alerts import alerts
from tests.observability.metric_names import exported, named
from tools.dashboards.__main__ import OUT, files
from tools.dashboards.grafana import SCHEMA_VERSION

Json = dict[str, Any]
UIDS = {"openworkflow-fleet", "openworkflow-namespace", "openworkflow-operator"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RANGES = re.compile(r"(\w+)\s*\((\w+)(?:\{[^}]*\})?(?:\[([^\]]+)\])?\)")
every_file = pytest.mark.parametrize("path", sorted(OUT.glob("*.json")), ids=lambda path: path.stem)


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: Json) -> Iterator[str]:
    return (t["expr"] for panel in panels(dashboard) for t in panel["targets"])


def read(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found


def test_the_files_are_what_their_source_makes() -> None:
    """If not: python -m tools.dashboards."""
    assert files() == {path: path.read_text() for path in OUT.glob("*.json")}


def test_each_has_an_address_of_its_own() -> None:
    assert sorted(UIDS) == sorted(read(path)["uid"] for path in files())


@every_file
def test_a_dashboard_is_named_tagged_linked_and_not_edited_in_place(path: Path) -> None:
    dashboard = read(path)

    assert dashboard["schemaVersion"] == SCHEMA_VERSION
    assert dashboard["tags"] == ["openworkflow"]
    assert dashboard["editable"] is False
    assert dashboard["description"]
    assert not {"__inputs", "__requires", "id"} & dashboard.keys()
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"], link["includeVars"]) == (
        "dashboards",
        ["openworkflow"],
        True,
    )


@every_file
def test_the_data_source_is_chosen_and_nowhere_fixed(path: Path) -> None:
    dashboard = read(path)
    first = dashboard["templating"]["list"][0]

    assert (first["name"], first["type"], first["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert all(found == DATASOURCE for found in _values(dashboard, "datasource"))
    assert all(t["datasource"] == DATASOURCE for p in panels(dashboard) for t in p["targets"])


@every_file
def test_the_variables_are_labels_of_our_metrics_with_all_and_several(path: Path) -> None:
    dashboard = read(path)
    variables = dashboard["templating"]["list"][1:]
    wanted = ["kube_namespace", "workflow_namespace"]

    assert [v["name"] for v in variables][:2] == wanted
    assert ("workflow" in [v["name"] for v in variables]) is (path.stem == "namespace")
    for variable in variables:
        assert (variable["refresh"], variable["multi"], variable["includeAll"]) == (2, True, True)
        assert named(variable["query"]["query"]) <= exported()
    for query in queries(dashboard):
        assert not re.search(r'(?<!~)"\$', query), f"a choice of several needs =~: {query}"


@every_file
def test_a_panel_says_what_it_shows_in_which_unit(path: Path) -> None:
    found = panels(read(path))
    titles = [panel["title"] for panel in found]

    assert 0 < len(found) <= 25
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in found)
    assert all(panel["description"].endswith(".") for panel in found)
    assert all(titles)
    assert all(panel["targets"] for panel in found)


@every_file
def test_panels_lie_side_by_side_within_the_page(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(path)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@every_file
def test_a_panel_asks_only_for_metrics_that_there_are(path: Path) -> None:
    for query in queries(read(path)):
        assert named(query) <= exported(), query


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_only_for_metrics_that_there_are(alert: Json) -> None:
    assert named(alert["expr"])
    assert named(alert["expr"]) <= exported()


@every_file
def test_counters_are_read_by_their_rate_over_a_range_that_grafana_chooses(path: Path) -> None:
    counters = re.compile(r"\w+_(?:total|bucket|sum|count)\b")
    for query in queries(read(path)):
        read_well = {
            metric
            for function, metric, span in RANGES.findall(query)
            if function in ("rate", "increase") and span == "$__rate_interval"
        }
        assert set(counters.findall(query)) <= read_well, query
        assert set(re.findall(r"\[([^\]]+)\]", query)) <= {"$__rate_interval"}


def test_the_builds_of_the_workers_are_shown() -> None:
    for name in ("fleet", "namespace"):
        rows = [p["title"] for p in read(OUT / f"{name}.json")["panels"] if p["type"] == "row"]
        assert "Builds" in rows
        assert "by (kube_namespace, workflow_namespace, namespace_id, build_id, version)" in str(
            list(queries(read(OUT / f"{name}.json")))
        )


def test_a_line_of_the_fleet_leads_to_its_namespace() -> None:
    text = (OUT / "fleet.json").read_text()

    assert "/d/openworkflow-namespace?var-datasource=${datasource}" in text
    assert "var-workflow_namespace=${__data.fields.workflow_namespace}" in text


def _values(value: Any, key: str) -> Iterator[Any]:
    """All values of a key, however deep."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        for each in value.values():
            yield from _values(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, key)
