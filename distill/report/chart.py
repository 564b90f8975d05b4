"""Line charts as SVG that follows the page's colours. Lines differ in their dashes, not by colour alone."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 18, 40
MOST_POINTS = 400
UNITS = ((1.0, ""), (1e3, " k"), (1e6, " M"))
STYLES = 6
"""Kinds of lines that the style sheet knows, ``l0`` to ``l5``: the most that one chart can tell apart."""


def line_chart(lines: Sequence[Points], *, marks: dict[str, float], unit: str, title: str) -> Markup:
    """Lines over samples seen, and ``marks``: heights that are drawn straight across, each with its name.

    Line i has the look ``l`` i, also where lines before it are empty. ``unit`` is the vertical axis's. A chart
    without a point is empty.
    """
    points = [point for line in lines for point in line]
    if not points:
        return Markup()
    xs = [0.0, max(x for x, _ in points)]
    low, high, step = _scale([*(y for _, y in points), *marks.values()])
    count = (high - low) / step

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / max(xs[1], 1)
        return round(right, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    label = escape(title)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"><title>{label}</title>']
    for number in range(round(count) + 1):
        value = low + number * step
        x, y = at(0, value)
        parts.append(f'<path class="grid" d="M{x} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{x - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for share in (0, 0.5, 1):
        x, y = at(share * xs[1], low)
        anchor = {0: "start", 0.5: "middle", 1: "end"}[share]
        parts.append(f'<text class="tick" x="{x}" y="{y + 16}" text-anchor="{anchor}">{short(share * xs[1])}</text>')
    parts.append(f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">samples seen</text>')
    parts.append(f'<text class="tick" x="4" y="10">{escape(unit)}</text>')
    for name, height in marks.items():
        _, y = at(0, height)
        parts.append(f'<path class="mark" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="label" x="{LEFT + 6}" y="{y - 5}">{escape(name)} {height:.4g}</text>')
    for number, line in enumerate(lines):
        places = [at(*point) for point in thin(line)]
        if len(places) == 1:
            parts.append(f'<circle class="l{number}" cx="{places[0][0]}" cy="{places[0][1]}" r="4"/>')
        elif places:
            path = "L".join(f"{x} {y}" for x, y in places)
            parts.append(f'<path class="line l{number}" d="M{path}"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped


def thin(line: Points) -> Points:
    """At most 400 points of a line; each stands for those it replaces, at their mean."""
    group = max(1, math.ceil(len(line) / MOST_POINTS))
    parts = [line[start : start + group] for start in range(0, len(line), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def short(count: float) -> str:
    """A large number in few letters: 1.5 M."""
    size, letter = next((unit for unit in UNITS if count / unit[0] < 999.5), (1e9, " G"))
    return f"{count / size:.3g}{letter}"


def _scale(values: list[float]) -> tuple[float, float, float]:
    """Round numbers below and above all values, and a round step between them."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    bottom = math.floor(low / step) * step
    return bottom, max(math.ceil(high / step) * step, bottom + step), step
