"""Lays out the documentation for `make site`, and writes llms.txt.

Pages keep their places in the repository, so that their links to each other hold. What they link to
that is no page, such as an example, becomes a page that shows it; the reference is made from what
the package exports.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "site"
PAGES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "charts/*/README.md")
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
PICTURES = frozenset({".png", ".svg"})
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sql": "sql", ".json": "json"}


def pages() -> list[Path]:
    """The pages of the site, as paths in the repository."""
    return sorted({path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)})


def shown(path: Path) -> Path:
    """The page that shows a file or folder that is none itself."""
    return path / "index.md" if (ROOT / path).is_dir() else Path(f"{path}.md")


def page_for(target: Path) -> Path:
    """The page that a link leads to."""
    readme = target / "README.md"
    return readme if (ROOT / readme).exists() else shown(target)


def with_pages(text: str, page: Path, linked: set[Path]) -> str:
    """A page's text with links to pages and pictures only; what they show is added to `linked`."""

    def rewritten(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / found[1]))
        if target.suffix in PICTURES:
            linked.add(target)
        if target.suffix in {".md", *PICTURES}:
            return found[1]
        if (there := page_for(target)) == shown(target):
            linked.add(target)
        return os.path.relpath(there, page.parent)

    # A table that follows a comment at once is none to Python's Markdown.
    return LINK.sub(rewritten, text).replace("-->\n|", "-->\n\n|")


def page_of(path: Path) -> str:
    """What shows a file, or the names in a folder."""
    if not (ROOT / path).is_dir():
        language = LANGUAGES.get(path.suffix, "")
        return f"# {path}\n\n````{language}\n{(ROOT / path).read_text()}````\n"
    names = sorted(each.name for each in (ROOT / path).iterdir() if not each.name.startswith("_"))
    return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)


def reference() -> str:
    """The page of the reference: all that the package exports."""
    import openworkflow

    lines = ["# The Python API", "", "All of it is imported from `openworkflow`.", ""]
    lines += [f"::: openworkflow.{name}" for name in openworkflow.__all__]
    lines += ["", "::: openworkflow.sse.EventStream", "::: openworkflow.testing.Environment"]
    return "\n\n".join(lines) + "\n"


def titles() -> Iterator[tuple[str, Path, str]]:
    """Title, path and first sentence of each page of the documentation."""
    for page in [
        Path("README.md"),
        *(p for p in pages() if p.parts[0] == "docs" and len(p.parts) == 2),
    ]:
        lines = [line.strip() for line in (ROOT / page).read_text().splitlines() if line.strip()]
        first = next((line for line in lines[1:] if line[0].isalpha()), "")
        yield lines[0].lstrip("# "), page, first.split(". ")[0].rstrip(".:")


def llms() -> str:
    """What a language model is given to find its way (llmstxt.org)."""
    listed = "".join(f"- [{title}]({page}): {first}\n" for title, page, first in titles())
    return (
        "# OpenWorkflow for Python\n\n"
        "> Durable workflows on PostgreSQL: plain async Python functions whose steps are recorded,"
        " run as a fleet on Kubernetes. The package is `openworkflow-fleet`, the import"
        f" `openworkflow`.\n\n## Documentation\n\n{listed}"
    )


def main() -> None:
    """Write the folder that mkdocs reads, and llms.txt."""
    shutil.rmtree(OUT, ignore_errors=True)
    linked: set[Path] = set()
    texts = {page: with_pages((ROOT / page).read_text(), page, linked) for page in pages()}
    pictures = {path for path in linked if path.suffix in PICTURES}
    texts |= {shown(path): page_of(path) for path in linked - pictures}
    texts[Path("docs/api.md")] = reference()
    for page, text in texts.items():
        (OUT / page).parent.mkdir(parents=True, exist_ok=True)
        (OUT / page).write_text(text)
    for picture in pictures:
        (OUT / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / picture, OUT / picture)
    (ROOT / "llms.txt").write_text(llms())


if __name__ == "__main__":
    main()
