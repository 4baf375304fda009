"""A picture of the tables that the comparison prints: bars for each who took part.

    python -m benchmarks.pictures [REPORT.md] [--out PICTURE.svg]

A picture is drawn from the markdown of a report, so that it says what the table says.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

README = Path(__file__).parent / "README.md"
PICTURE = Path(__file__).parent / "pictures" / "peers.svg"
WIDTH, LABEL, BAR, LINE, TITLE = 720, 130, 440, 22, 44
OURS = "ours"
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .bar { fill: #8c959f } .ours { fill: #1f6feb } .far { fill: #8c959f55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #4493f8 } .far { fill: #6e768177 }
}
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One question: whose table, which of its columns, and how that is said."""

    heading: str
    """How the heading of the table begins."""
    column: str
    title: str
    further: str | None = None
    """A column whose larger figure is drawn behind, such as p99 behind p50."""


PANELS = (
    Panel("W1,", "runs/s", "runs of one step a second: more is better"),
    Panel("W2,", "steps/s", "steps a second, of runs of ten: more is better"),
    Panel("W4,", "p50", "ms until the caller knows of the end, p50 and p99: less is better", "p99"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """Whose figure it is; `further` is 0 where there is none."""

    name: str
    figure: float
    further: float = 0.0


def bars(report: str, panel: Panel) -> list[Bar]:
    """The figures of a panel. Raises ValueError where the report has no such table or column."""
    header, *rows = _table(report, panel.heading)
    place = header.index(panel.column)
    further = None if panel.further is None else header.index(panel.further)
    return [
        Bar(row[0], _number(row[place]), 0.0 if further is None else _number(row[further]))
        for row in rows
        if row[place] != "-"
    ]


def picture(report: str) -> str:
    """All panels, one below the other, as the text of an SVG file."""
    parts: list[str] = []
    top = 0
    for panel in PANELS:
        found = bars(report, panel)
        parts += _drawn(panel, found, top)
        top += TITLE + LINE * len(found)
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">'
    title = "<title>This worker beside its peers; the scale is logarithmic</title>"
    return "\n".join([frame, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _table(report: str, heading: str) -> list[list[str]]:
    lines = iter(report.splitlines())
    for line in lines:
        if line.startswith("#") and line.lstrip("# ").startswith(heading):
            break
    else:
        raise ValueError(f"the report has no table {heading!r}")
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows or line.startswith("#"):
            break
    return [row for row in rows if any(cell.strip("-:") for cell in row)]


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


def _drawn(panel: Panel, found: Sequence[Bar], top: int) -> Iterator[str]:
    figures = [figure for bar in found for figure in (bar.figure, bar.further) if figure]
    least, most = math.log10(min(figures)) - 0.5, math.log10(max(figures))
    yield _text(0, top + 26, f"{panel.title} (log scale)", "title")
    for number, bar in enumerate(found):
        y = top + TITLE - 8 + LINE * number
        yield _text(0, y + 13, bar.name)
        kind = OURS if bar.name == OURS else "bar"
        widths = [
            BAR * (math.log10(figure) - least) / (most - least) if figure else 0.0
            for figure in (bar.further, bar.figure)
        ]
        for width, name in zip(widths, ("far", kind), strict=True):
            if width:
                yield f'<rect x="{LABEL}" y="{y}" width="{width:.0f}" height="16" class="{name}"/>'
        said = " and ".join(f"{each:,.{_digits(each)}f}" for each in _both(bar))
        yield _text(LABEL + int(max(widths)) + 6, y + 13, said)


def _both(bar: Bar) -> list[float]:
    return [bar.figure, *([bar.further] if bar.further else [])]


def _digits(figure: float) -> int:
    return 0 if figure >= 100 else 1


def _text(x: int, y: int, text: str, kind: str | None = None) -> str:
    known = "" if kind is None else f' class="{kind}"'
    return f'<text x="{x}" y="{y}"{known}>{escape(text)}</text>'


def main() -> None:
    """Draw the picture of a report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("report", nargs="?", type=Path, default=README)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(picture(options.report.read_text()))


if __name__ == "__main__":
    main()
