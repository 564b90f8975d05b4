"""Line charts as SVG, styled by the page's style sheet. Lines differ in their dashes, not only in color."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 18, 40
MAX_POINTS = 400
UNITS = ((1.0, ""), (1e3, " k"), (1e6, " M"))
STYLES = 6
"""Line styles of the style sheet, ``l0`` to ``l5``: the maximum number of lines in a chart."""


def line_chart(lines: Sequence[Points], *, marks: dict[str, float], unit: str, title: str) -> Markup:
    """Return a chart of lines over samples seen, with ``marks``: named heights that are drawn straight across.

    Line i has the style ``l`` i, also if lines before it are empty. ``unit`` is that of the vertical axis. Without a
    point the chart is empty.
    """
    points = [point for line in lines for point in line]
    if not points:
        return Markup()
    last = max(x for x, _ in points)
    low, high, step = _scale([*(y for _, y in points), *marks.values()])
    count = (high - low) / step

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / max(last, 1)
        return round(right, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    label = escape(title)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"><title>{label}</title>']
    for number in range(round(count) + 1):
        value = low + number * step
        x, y = at(0, value)
        parts.append(f'<path class="grid" d="M{x} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{x - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x, y = at(share * last, low)
        parts.append(
            f'<text class="tick" x="{x}" y="{y + 16}" text-anchor="{anchor}">{format_count(share * last)}</text>'
        )
    parts.append(f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">samples seen</text>')
    parts.append(f'<text class="tick" x="4" y="10">{escape(unit)}</text>')
    for name, height in marks.items():
        _, y = at(0, height)
        parts.append(f'<path class="mark" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="label" x="{LEFT + 6}" y="{y - 5}">{escape(name)} {height:.4g}</text>')
    for number, line in enumerate(lines):
        dots = [at(*point) for point in thin(line)]
        if len(dots) == 1:
            parts.append(f'<circle class="l{number}" cx="{dots[0][0]}" cy="{dots[0][1]}" r="4"/>')
        elif dots:
            path = "L".join(f"{x} {y}" for x, y in dots)
            parts.append(f'<path class="line l{number}" d="M{path}"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped


def thin(line: Points) -> Points:
    """Return at most 400 points of a line, each the mean of the points it replaces."""
    group = max(1, math.ceil(len(line) / MAX_POINTS))
    parts = [line[start : start + group] for start in range(0, len(line), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def format_count(count: float) -> str:
    """Return a number such as ``1.5 M``."""
    size, letter = next((unit for unit in UNITS if count / unit[0] < 999.5), (1e9, " G"))
    return f"{count / size:.3g}{letter}"


def _scale(values: list[float]) -> tuple[float, float, float]:
    """Return round numbers below and above all values, and a round step between them."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    bottom = math.floor(low / step) * step
    return bottom, max(math.ceil(high / step) * step, bottom + step), step
