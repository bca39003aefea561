"""What all pictures share: one look, sizes in pixels, and files in three formats.

Figures are made with matplotlib's objects alone: no window, no global state.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
# A README shows 800 pixels.
WIDTH = 800
_DOTS_PER_INCH = 100
# Half a pixel for every one of a README: sharp on any screen.
_SHARPNESS = 2

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


class UnavailableError(ValueError):
    """Something that is not installed, and how to install it."""


def check(path: Path, option: str = "--plot", extra: str = "plot") -> None:
    """Raises ValueError if no picture can be drawn into `path`."""
    if path.suffix.lower() not in SUFFIXES:
        expected = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(f"{option} is {path}, expected a name that ends in {expected}")
    if find_spec("matplotlib") is None:
        raise UnavailableError(f"{option} needs matplotlib: pip install 'striate[{extra}]'")


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
    with import_module("matplotlib").rc_context(_SETTINGS):
        yield
