"""Draw line charts as SVG. The lines of a chart differ in color and in dash pattern."""

import math
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from manifests.support.counts import counted

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 18, 40
MAX_POINTS = 400
UNITS = ((1.0, ""), (1e3, " k"), (1e6, " M"))
STYLES = 6  # line styles ``l0`` to ``l5`` of the style sheet: the maximum number of lines in a chart


def line_chart(lines: Sequence[Points], *, marks: dict[str, float], unit: str, title: str) -> Markup:
    """Return a chart of ``lines``: lists of points (samples seen, value). Without points the chart is empty.

    ``marks`` are values by name, drawn as horizontal lines. ``unit`` is the unit of the values. The first line
    has the style ``l0`` of the style sheet, the second line ``l1``, and so on.
    """
    points = [point for line in lines for point in line]
    if not points:
        return Markup()
    last = max(x for x, _ in points)
    low, high, step = _scale([*(y for _, y in points), *marks.values()])

    def across(samples: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * samples / max(last, 1), 1)

    def down(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    heights = [low + number * step for number in range(round((high - low) / step) + 1)]
    svg = TEMPLATES.get_template("chart.svg.j2").render(
        **{"title": title, "unit": unit, "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        ticks=[(value, down(value)) for value in heights],
        samples=[(x, across(x), anchor) for x, anchor in ((0.0, "start"), (last / 2, "middle"), (last, "end"))],
        marks=[(name, value, down(value)) for name, value in marks.items()],
        lines=[[(across(x), down(y)) for x, y in thin(line)] for line in lines],
    )
    return Markup(svg)  # noqa: S704 - the template escapes every text


def thin(line: Points) -> Points:
    """Reduce a line to at most 400 points. A new point has the mean value of a group of neighboring points."""
    group = max(1, math.ceil(len(line) / MAX_POINTS))
    parts = [line[start : start + group] for start in range(0, len(line), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def format_count(count: float) -> str:
    """Format a count with at most three digits and a unit, such as ``1.5 M``."""
    size, letter = next((unit for unit in UNITS if count / unit[0] < 999.5), (1e9, " G"))
    return f"{count / size:.3g}{letter}"


def _scale(values: list[float]) -> tuple[float, float, float]:
    """Return three round numbers for an axis: the lowest value, the highest value, and the step between two ticks."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    bottom = math.floor(low / step) * step
    return bottom, max(math.ceil(high / step) * step, bottom + step), step


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("distill", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {"short": format_count, "counted": counted}
