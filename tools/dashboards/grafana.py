"""Dashboards and panels as Grafana stores them, with the house's defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

SCHEMA_VERSION: Final = 39  # of Grafana 10.4; later ones read it
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "yellow", "red"
Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One line of a panel, or several by `legend`."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """One panel; `width` is of 24."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    type: str = "timeseries"
    width: int = 8
    height: int = 7
    steps: tuple[tuple[str, float | None], ...] = ((GREEN, None),)
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    extra: Json = field(default_factory=dict)

    def to_json(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana stores it."""
        thresholds = [{"color": color, "value": value} for color, value in self.steps]
        return {
            "id": number,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "thresholds": {"mode": "absolute", "steps": thresholds},
                    "custom": self.custom,
                    **self.defaults,
                },
                "overrides": self.extra.get("overrides", []),
            },
            "options": self.options,
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            **{name: value for name, value in self.extra.items() if name != "overrides"},
        }

    def _target(self, place: int, query: Query) -> Json:
        target: Json = {
            "refId": "ABCDEFGHIJKLMN"[place],
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
        }
        if self.type in ("stat", "table"):
            target |= {"instant": True, "range": False}
        if self.type in ("table", "heatmap"):
            target["format"] = self.type
        return target


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top, of a label's values."""

    name: str
    label: str
    query: str

    def to_json(self) -> Json:
        """The variable as Grafana stores it. `All` matches series without the label too."""
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": f"label_values({self.query}, {self.name})", "refId": self.name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    def to_json(self) -> Json:
        """The dashboard as Grafana stores it."""
        datasource = {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
        }
        return {
            "uid": f"openworkflow-{self.name}",
            "title": f"OpenWorkflow / {self.title}",
            "description": self.description,
            "tags": ["openworkflow"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "timezone": "browser",
            "time": {"from": "now-1h", "to": "now"},
            "links": [_LINKS],
            "annotations": {"list": []},
            "templating": {"list": [datasource, *(v.to_json() for v in self.variables)]},
            "panels": _laid_out(self.rows),
        }


_LINKS: Final = {
    "type": "dashboards",
    "title": "OpenWorkflow",
    "tags": ["openworkflow"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
}


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    """Left to right, then down."""
    made: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        made.append(
            {"id": len(made) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > 24:
                x, y = 0, y + panel.height
            made.append(panel.to_json(len(made) + 1, x, y))
            x += panel.width
        y += max(panel.height for panel in row.panels)
    return made


def stat(title: str, description: str, unit: str, expr: str, **how: Any) -> Panel:
    """One number, as it is now."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
        "colorMode": "value",
        "graphMode": "none",
    }
    shape: Json = {"width": 4, "height": 4, "options": options} | how
    return Panel(title, description, unit, (Query(expr, title),), "stat", **shape)


def graph(title: str, description: str, unit: str, *queries: Query, **how: Any) -> Panel:
    """Lines over time."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {"fillOpacity": 8, "showPoints": "never", "spanNulls": False} | how.pop("custom", {})
    shape: Json = {"options": options, "custom": custom, "defaults": {"min": 0}} | how
    return Panel(title, description, unit, queries, **shape)


def steps(title: str, description: str, unit: str, *queries: Query, **how: Any) -> Panel:
    """Whole numbers that jump."""
    custom = {"lineInterpolation": "stepAfter", "fillOpacity": 0}
    return graph(title, description, unit, *queries, custom=custom, **how)


def stacked(title: str, description: str, unit: str, *queries: Query, **how: Any) -> Panel:
    """Parts of a sum."""
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    return graph(title, description, unit, *queries, custom=custom, **how)


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """A sum per second of a counter."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, labels: str, by: str = "", legend: str = "") -> tuple[Query, ...]:
    """The middle and the tail of a histogram."""
    groups = ", ".join(filter(None, ("le", by)))
    buckets = rate(f"{metric}_bucket", labels, groups)
    return tuple(
        Query(f"histogram_quantile({q}, {buckets})", f"{legend} p{q * 100:g}".strip())
        for q in (0.5, 0.95, 0.99)
    )
