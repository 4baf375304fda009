"""What the documentation says can be checked where a program can check it."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from openworkflow.engine.verdict import KINDS
from openworkflow.settings import PREFIX, Settings
from openworkflow.telemetry.catalogue import catalogue

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked)


def test_every_metric_is_documented_as_it_is() -> None:
    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    for metric in catalogue():
        labels = ", ".join(f"`{label}`" for label in metric.labels if label != "namespace_id")
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |")

    assert "\n".join(rows) in (ROOT / "docs" / "operations.md").read_text()


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for field in fields(Settings):
        variable = "DATABASE_URL" if field.name == "database_url" else PREFIX + field.name.upper()
        assert f"| `{variable}` |" in text


def test_every_kind_of_database_error_is_in_its_runbook() -> None:
    runbook = (ROOT / "docs" / "runbooks" / "OpenWorkflowWorkerDatabaseErrors.md").read_text()
    for kind in [*KINDS.values(), "heartbeat", "history"]:
        assert 2 <= runbook.count(f"`{kind}`"), f"{kind}: what it means, and what to do"


def test_every_message_that_troubleshooting_explains_is_one_that_we_say() -> None:
    """A message that was reworded would be looked for in vain."""
    source = "".join(path.read_text() for path in (ROOT / "worker").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that are written in several parts
    table = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## What messages say")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)

    assert messages
    for message in messages:
        for part in re.split(r"…|'x'|\*:9090", message):
            assert part.strip() in source, message


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
