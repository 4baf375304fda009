"""Writes the Grafana dashboards of the chart; edit the pages here, never there or in Grafana.

python -m tools.dashboards
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tools.dashboards import fleet, namespace, operators

OUT: Final = Path(__file__).parents[2] / "charts/openworkflow/dashboards"
PAGES: Final = (fleet.PAGE, namespace.PAGE, operators.PAGE)


def files() -> dict[Path, str]:
    """Every dashboard's file and its text."""
    return {
        OUT / f"{page.name}.json": json.dumps(page.to_json(), indent=2) + "\n" for page in PAGES
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
