"""A network drawn as a graph: boxes from top to bottom, branches side by side, in columns.

A layered drawing of its own: what the outline calls a unit has an entry and an exit, branches are
lanes between them, joins are bars across their lanes. All lines go down or across.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from striate.network.outline import Block, Kind, Unit
from striate.notation.ir import Shape
from striate.pictures.figures import AMBER, BLUE, GREEN, GREY, PINK, WIDTH, canvas
from striate.pictures.lanes import BOX, GAP, Lanes, divided

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels: around a column, the title's line, the legend's, the arrow at the end.
_GUTTER, _TITLE, _LEGEND, _END = 18, 30, 26, 14
_CHARACTER, _REPEATS = 4.7, 24
_MOST_COLUMNS, _LONGEST = 6, 26
# Points.
_SMALL, _TINY = 6.4, 5.8

_COLOURS = {
    Kind.INPUT: ("#ffffff", GREY),
    Kind.CONVOLUTION: ("#cfe4f3", BLUE),
    Kind.GROUPED: ("#cdeee4", GREEN),
    Kind.POOLING: ("#fbe3c5", AMBER),
    Kind.LINEAR: ("#f3dcea", PINK),
    Kind.JOIN: ("#dddddd", "#888888"),
    Kind.OTHER: ("#f5f0c0", "#b5a642"),
}


@dataclass(frozen=True)
class Architecture:
    """The drawing of a network's units under a title."""

    title: str
    units: tuple[Unit, ...]

    @cached_property
    def columns(self) -> list[list[Lanes]]:
        """The units in columns of about equal height: as many as fit beside each other."""
        entries = [(), *[unit.shape for unit in self.units]]
        every = [Lanes(unit, entry) for unit, entry in zip(self.units, entries, strict=False)]
        best = [every]
        for count in range(2, _MOST_COLUMNS + 1):
            columns = divided(every, count)
            if sum(map(_column_width, columns)) + _GUTTER * (count + 1) > WIDTH:
                break
            best = columns
        return best

    @property
    def height(self) -> float:
        """Pixels."""
        return _TITLE + max(map(_column_height, self.columns)) + _LEGEND

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""
        pad = canvas(figure, top, height, self.height)
        pad.text(WIDTH / 2, 14, self.title, ha="center", va="center", fontsize=9.5)
        widths = [_column_width(column) for column in self.columns]
        spare = (WIDTH - sum(widths)) / (len(widths) + 1)
        left = spare
        before = (0.0, 0.0, 0.0)
        for column, width in zip(self.columns, widths, strict=True):
            middle = left + width / 2
            if column is not self.columns[0]:
                x, y, right = before
                aisle = right + spare / 2
                line = [(x, y), (x, y + 6), (aisle, y + 6), (aisle, _TITLE), (middle, _TITLE)]
                pad.plot(*zip(*line, strict=True), color=GREY, linewidth=0.8)
            bottom = self._column(pad, column, left, width)
            before = middle, bottom, left + width
            left += width + spare
        self._legend(pad)

    def _column(self, pad: "Axes", column: Sequence[Lanes], left: float, width: float) -> float:
        """One column; gives the place where it ends."""
        middle, y = left + width / 2, float(_TITLE)
        shape: Shape = ()
        for lanes in column:
            if lanes.entry:
                _down(pad, middle, y, y + lanes.head)
                below = y + lanes.head / 2
                if lanes.entry != shape:
                    _note(pad, left + width, below, _sizes(lanes.entry), "right")
                shape = lanes.entry
                y += lanes.head
                beside = y + BOX / 2 if len(lanes.unit.blocks) == 1 else below
                _note(pad, left, beside, _name(lanes.unit), "left")
            _unit(pad, lanes, middle, y)
            y += lanes.height
        last = self.units[-1]
        if column[-1].unit is last:
            _down(pad, middle, y, y + _END)
            _note(pad, left + width, y + _END / 2, _sizes(last.shape), "right")
        return y

    def _legend(self, pad: "Axes") -> None:
        there = {block.kind for unit in self.units for block in unit.blocks}
        kinds = [kind for kind in Kind if kind in there and kind is not Kind.INPUT]
        texts = {kind: str(kind) for kind in kinds} | {Kind.JOIN: "sum, concatenation"}
        texts = {kind: texts[kind] for kind in kinds}
        total = sum(22 + _CHARACTER * len(text) + 14 for text in texts.values())
        x, y = (WIDTH - total) / 2, self.height - _LEGEND / 2
        for kind, text in texts.items():
            _rectangle(pad, x, y - 5, 14, 10, *_COLOURS[kind])
            pad.text(x + 19, y, text, fontsize=_SMALL, va="center_baseline")
            x += 22 + _CHARACTER * len(text) + 14


def _name(unit: Unit) -> str:
    """The module; with the last of those that repeat, without what both lie in."""
    name, last = unit.name.split("."), unit.last.split(".")
    shared = next((k for k, (a, b) in enumerate(zip(name, last, strict=False)) if a != b), None)
    text = unit.name if shared is None else f"{unit.name} – {'.'.join(last[shared:])}"
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _sizes(shape: Shape) -> str:
    return "×".join(map(str, shape[1:]))


def _column_width(column: Sequence[Lanes]) -> float:
    """Wide enough for its boxes, and for the names and shapes on both sides of its middle line."""
    half = 0.0
    for lanes in column:
        words = 4.2 * max(len(_name(lanes.unit)), len(_sizes(lanes.entry))) + 8
        single = len(lanes.unit.blocks) == 1
        repeats = _REPEATS if lanes.unit.repeats > 1 else 0
        half = max(half, words + lanes.box / 2 if single else words, lanes.right + repeats)
    return 2 * half


def _column_height(column: Sequence[Lanes]) -> float:
    return sum(lanes.height + lanes.head for lanes in column) + 12


def _unit(pad: "Axes", lanes: Lanes, middle: float, y: float) -> None:
    """A unit whose entry is at (middle, y)."""
    unit = lanes.unit
    if len(unit.blocks) > 1:
        size = lanes.half + lanes.right + 4, lanes.height - 4
        _rectangle(pad, middle - lanes.half - 2, y + 2, *size, "#f7f7f7", "#e6e6e6")
    if unit.repeats > 1:
        right = lanes.right if len(unit.blocks) > 1 else lanes.box / 2
        place = middle + right + 6, y + lanes.height / 2
        pad.text(*place, f"×{unit.repeats}", fontsize=8, fontweight="bold", va="center")
    edges, top = [], y + lanes.margin
    for row in range(max(lanes.rows) + 1):
        edges.append((top, top + lanes.row_height(row)))
        top += lanes.row_height(row) + GAP
    places = [edges[row] for row in lanes.rows]
    _lines(pad, lanes, middle, y, places)
    for number, block in enumerate(unit.blocks):
        _block(pad, block, lanes, number, middle, *places[number])
    _down(pad, middle, places[-1][1], y + lanes.height, arrow=False)


def _block(
    pad: "Axes", block: Block, lanes: Lanes, number: int, middle: float, top: float, bottom: float
) -> None:
    """A box, or a bar under all lines that it joins."""
    x = lanes.middle(number)
    left, right = x - lanes.box / 2, x + lanes.box / 2
    if block.kind is Kind.JOIN:
        first, last = lanes.span(number)
        left, right = first - 9, last + 9
    left, right = middle + left, middle + right
    _rectangle(pad, left, top, right - left, bottom - top, *_COLOURS[block.kind])
    place = (left + right) / 2, (top + bottom) / 2
    pad.text(*place, block.text, fontsize=_SMALL, ha="center", va="center_baseline")


def _lines(
    pad: "Axes",
    lanes: Lanes,
    middle: float,
    y: float,
    places: Sequence[tuple[float, float]],
) -> None:
    """From the entry at (middle, y) to who reads it, and from blocks to their readers."""
    for number, block in enumerate(lanes.unit.blocks):
        top = places[number][0]
        for source in block.operands:
            lane, end = lanes.line(source, number), lanes.middle(number)
            x = 0.0 if source < 0 else lanes.middle(source)
            start = y if source < 0 else places[source][1]
            if lane is not None or block.kind is not Kind.JOIN:
                end = end if lane is None else lane
                bend = start + (lanes.margin if source < 0 else GAP) / 2
                line = [(x, start), (x, bend), (end, bend), (end, top)]
            else:
                line = [(x, start), (x, top)]
            points = [(middle + a, b) for a, b in line]
            pad.plot(*zip(*points, strict=True), color=GREY, linewidth=0.8)


def _note(pad: "Axes", x: float, y: float, text: str, side: Literal["left", "right"]) -> None:
    """A small word beside the drawing; `side` is the one that x is at."""
    pad.text(x, y, text, fontsize=_TINY, color=GREY, ha=side, va="center")


def _down(pad: "Axes", x: float, start: float, end: float, arrow: bool = True) -> None:
    pad.plot((x, x), (start, end), color=GREY, linewidth=0.8, solid_capstyle="butt")
    if arrow:
        pad.fill((x - 2.6, x + 2.6, x), (end - 5, end - 5, end), color=GREY, linewidth=0)


def _rectangle(
    pad: "Axes", left: float, top: float, width: float, height: float, fill: str, edge: str
) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=2.5"
    patch = FancyBboxPatch(
        (left, top), width, height, boxstyle=style, facecolor=fill, edgecolor=edge, linewidth=0.7
    )
    pad.add_patch(patch)
