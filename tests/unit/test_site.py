"""How the documentation is laid out as a site; `make site` builds it, with every link checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.site import PICTURES, ROOT, llms, page_for, pages, with_pages


def test_llms_txt_is_made_from_the_pages() -> None:
    assert (ROOT / "llms.txt").read_text() == llms(), "run `make site`"


def test_every_page_of_the_documentation_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in pages():
        if page.parent == Path("docs"):
            assert f"- {page}\n" in navigation, f"{page}: name it in mkdocs.yml"


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("signals.md#waiting", "signals.md#waiting"),
        ("../examples/trip.py", "../examples/trip.py.md"),
        ("../manifests/examples", "../manifests/examples/index.md"),
        ("../charts/openworkflow", "../charts/openworkflow/README.md"),
        ("images/a.png", "images/a.png"),
        ("https://example.com/a", "https://example.com/a"),
        ("#here", "#here"),
    ],
)
def test_a_link_leads_to_a_page(link: str, there: str) -> None:
    assert with_pages(f"[x]({link})", Path("docs/page.md"), set()) == f"[x]({there})"


def test_a_folder_that_has_a_page_is_that_page() -> None:
    assert page_for(Path("charts/openworkflow")) == Path("charts/openworkflow/README.md")


def test_a_picture_is_brought_along_and_every_one_that_there_is_is_shown() -> None:
    shown: set[Path] = set()
    for page in pages():
        with_pages((ROOT / page).read_text(), page, shown)

    folders = (ROOT / "docs" / "images", ROOT / "benchmarks" / "pictures")
    there = {path.relative_to(ROOT) for folder in folders for path in folder.iterdir()}
    assert there == {path for path in shown if path.suffix in PICTURES}
