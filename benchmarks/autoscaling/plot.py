"""Pods over time as an SVG, written by hand: three step lines are not worth a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 900, 260, 44
COLOURS = ("#9aa0a6", "#e8710a", "#1a73e8")
Timeline = Sequence[tuple[float, int, int]]


def draw(title: str, timelines: Mapping[str, Timeline]) -> str:
    """One step line of pods asked for per controller."""
    last = max(line[-1][0] for line in timelines.values())
    most = max(pods for line in timelines.values() for _, pods, _ in line) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="18" font-size="14">{escape(title)}: worker pods asked for</text>',
        f'<text x="6" y="{MARGIN + 4}">{most}</text>',
        f'<text x="6" y="{HEIGHT - MARGIN + 4}">0</text>',
        f'<text x="{WIDTH - MARGIN - 30}" y="{HEIGHT - MARGIN + 18}">{last / 60:.0f} min</text>',
    ]
    for number, (name, line) in enumerate(timelines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _steps(line, last, most))
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
        )
        left = MARGIN + number * 160
        parts.append(f'<text x="{left}" y="{HEIGHT - 8}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _steps(line: Timeline, last: float, most: int) -> list[tuple[float, float]]:
    """Corners only: where the number changes, once before and once after."""
    points: list[tuple[float, float]] = []
    previous = None
    for when, pods, _ in line:
        x = MARGIN + (WIDTH - 2 * MARGIN) * when / last
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * pods / most
        if pods != previous:
            if points:
                points.append((x, points[-1][1]))
            points.append((x, y))
            previous = pods
    points.append((WIDTH - MARGIN, points[-1][1]))
    return points
