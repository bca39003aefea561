"""What all pictures share: one look, sizes in pixels, and files in three formats.

Figures are made with matplotlib's objects alone: no window, no global state.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
# A README shows 800 pixels.
WIDTH = 800
_DOTS_PER_INCH = 100
# Half a pixel for every one of a README: sharp on any screen.
_SHARPNESS = 2

# Colours that differ for colour-blind eyes too (Wong, Nature Methods 8, 2011).
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, AMBER = "#F0E442", "#56B4E9", "#E69F00"
INK, GREY = "#222222", "#777777"

# Text stays text in a drawing: a small file, sharp at any size, the same for the same content.
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "striate",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


class Panel(Protocol):
    """A part of a figure: as wide as that, `height` pixels high."""

    @property
    def height(self) -> float:
        """Pixels."""

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""


def stacked(panels: Sequence[Panel]) -> "Figure":
    """The panels one under another."""
    from matplotlib.figure import Figure

    height = sum(panel.height for panel in panels)
    with look():
        figure = Figure(figsize=(WIDTH / _DOTS_PER_INCH, height / _DOTS_PER_INCH))
        top = 0.0
        for panel in panels:
            panel.draw(figure, top, height)
            top += panel.height
    return figure


def axes(
    figure: "Figure", top: float, total: float, box: tuple[float, float, float, float]
) -> "Axes":
    """Axes whose left, upper edge, width and height are `box`, in pixels under `top`."""
    left, upper, width, height = box
    bottom = total - top - upper - height
    return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))


def canvas(figure: "Figure", top: float, total: float, height: float) -> "Axes":
    """The whole width of a panel as axes whose unit is a pixel and whose y goes down."""
    drawing = axes(figure, top, total, (0, 0, WIDTH, height))
    drawing.set_xlim(0, WIDTH)
    drawing.set_ylim(height, 0)
    drawing.set_axis_off()
    return drawing


def encoded(figure: "Figure", suffix: str) -> bytes:
    """The figure as the bytes of a file with `suffix`; the same for the same content."""
    file = io.BytesIO()
    kind = suffix.lower().removeprefix(".")
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with look():
        figure.savefig(file, format=kind, dpi=_SHARPNESS * _DOTS_PER_INCH, metadata=dateless)
    content = file.getvalue()
    if kind == "svg":  # a sixth of it is indentation
        content = b"\n".join(line.strip() for line in content.splitlines())
    return content


@contextmanager
def look() -> Iterator[None]:
    """The house's settings of matplotlib."""
    matplotlib = import_module("matplotlib")
    with matplotlib.rc_context(_SETTINGS):
        yield
