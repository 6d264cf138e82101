"""Figures as SVG. The same figure gives the same bytes."""

from io import BytesIO
from typing import Any, Final

from serving.model.suites.bench import benchmark_library
from serving.model.suites.rows import Bars, Figure

WIDTH_IN: Final = 6.4
CURVE_HEIGHT_IN: Final = 3.6
BAR_HEIGHT_IN: Final = 0.28
FRAME_HEIGHT_IN: Final = 0.9


def draw(figure: Figure | Bars) -> bytes:
    """SVG of curves or of bars, with intervals."""
    matplotlib = benchmark_library("matplotlib")
    backend = benchmark_library("matplotlib.backends.backend_svg")
    settings = {"svg.hashsalt": figure.title, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with matplotlib.rc_context(settings):
        drawn = benchmark_library("matplotlib.figure").Figure(layout="constrained")
        axes = drawn.add_subplot()
        if isinstance(figure, Bars):
            drawn.set_size_inches(WIDTH_IN, FRAME_HEIGHT_IN + BAR_HEIGHT_IN * len(figure.rows))
            _bars(axes, figure)
        else:
            drawn.set_size_inches(WIDTH_IN, CURVE_HEIGHT_IN)
            _curves(axes, figure)
        axes.set_title(figure.title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        data = BytesIO()
        backend.FigureCanvasSVG(drawn).print_svg(data, metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _curves(axes: Any, figure: Figure) -> None:
    """Intervals are bands."""
    across = range(len(figure.places))
    for line in figure.lines:
        axes.plot(across, [value.mean for value in line.values], marker="o", label=line.name)
        axes.fill_between(
            across, [value.low for value in line.values], [value.high for value in line.values], alpha=0.15
        )
    axes.set(xlabel=figure.across, ylabel=figure.up)
    axes.set_xticks(across, figure.places)
    axes.grid(visible=True, alpha=0.3)
    if len(figure.lines) > 1:
        axes.legend(frameon=False)


def _bars(axes: Any, figure: Bars) -> None:
    """The first row stands on top; intervals are whiskers."""
    places = range(len(figure.rows))
    values = [row.value for row in figure.rows]
    spreads = [row.spread or (row.value, row.value) for row in figure.rows]
    below = [value - low for value, (low, _) in zip(values, spreads, strict=True)]
    above = [high - value for value, (_, high) in zip(values, spreads, strict=True)]
    colours = ["C7" if row.floor is None else "C0" for row in figure.rows]
    axes.barh(places, values, xerr=(below, above), color=colours, ecolor="black", capsize=2)
    axes.set_yticks(places, [row.name for row in figure.rows])
    axes.invert_yaxis()
    axes.set_xlabel(figure.across)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)
