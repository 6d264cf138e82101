"""A figure as SVG. The same figure gives the same bytes."""

from io import BytesIO

from serving.model.suites.bench import benchmark_library
from serving.model.suites.rows import Figure


def draw(figure: Figure) -> bytes:
    """Curves with their intervals as bands."""
    matplotlib = benchmark_library("matplotlib")
    backend = benchmark_library("matplotlib.backends.backend_svg")
    settings = {"svg.hashsalt": figure.title, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with matplotlib.rc_context(settings):
        drawn = benchmark_library("matplotlib.figure").Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = drawn.add_subplot()
        across = range(len(figure.places))
        for line in figure.lines:
            axes.plot(across, [value.mean for value in line.values], marker="o", label=line.name)
            axes.fill_between(
                across, [value.low for value in line.values], [value.high for value in line.values], alpha=0.15
            )
        axes.set(title=figure.title, xlabel=figure.across, ylabel=figure.up)
        axes.set_xticks(across, figure.places)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(figure.lines) > 1:
            axes.legend(frameon=False)
        data = BytesIO()
        backend.FigureCanvasSVG(drawn).print_svg(data, metadata={"Date": None, "Creator": None})
    return data.getvalue()
