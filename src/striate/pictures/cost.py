"""What each part of a network costs, as bars: a row for each part, a column for each cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from striate.pictures.figures import BLUE, GREEN, ORANGE, PINK, WIDTH, axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _TITLE, _HEAD, _FOOT, _GAP = 14, 18, 34, 14, 12
# Pixels for each character of a name, and the most that are shown of it.
_CHARACTER, _MOST = 4.9, 40
# What a bar leaves free for the number at its end.
_NUMBER = 46


@dataclass(frozen=True, slots=True)
class Column:
    """One cost: of each row its value and how that is written; `title` names it and its total."""

    title: str
    values: Sequence[float]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Costs:
    """Rows of the same `names` in several columns, under a `title` if there is one."""

    names: Sequence[str]
    columns: Sequence[Column]
    title: str = ""

    @property
    def _head(self) -> int:
        return _HEAD + (_TITLE if self.title else 0)

    @property
    def height(self) -> float:
        """Pixels."""
        return self._head + _ROW * len(self.names) + _FOOT

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""
        names = [name if len(name) <= _MOST else f"…{name[1 - _MOST :]}" for name in self.names]
        figure.text(
            0.5, 1 - (top + 16) / height, self.title, ha="center", va="center", fontsize=9.5
        )
        left = _CHARACTER * max(map(len, names)) + 20
        width = (WIDTH - left - _GAP) / len(self.columns) - _GAP
        colours = (BLUE, PINK, GREEN, ORANGE)
        for number, column in enumerate(self.columns):
            x = left + number * (width + _GAP)
            box = (x, self._head, width, _ROW * len(self.names))
            bars = axes(figure, top, height, box)
            bars.barh(range(len(self.names)), column.values, height=0.72, color=colours[number % 4])
            largest = max(column.values, default=0) or 1.0
            bars.set_xlim(0, largest * width / max(width - _NUMBER, 1))
            bars.set_ylim(len(self.names) - 0.5, -0.5)
            for row, (value, text) in enumerate(zip(column.values, column.texts, strict=True)):
                space = largest * 4 / max(width - _NUMBER, 1)
                bars.text(value + space, row, text, fontsize=6.2, va="center_baseline")
            bars.set_title(column.title, fontsize=8, loc="left", pad=5)
            bars.set_xticks([])
            shown = names if number == 0 else [""] * len(names)
            bars.set_yticks(range(len(names)), shown, fontsize=6.2)
            bars.tick_params(length=0)
            for side in ("top", "right", "bottom"):
                bars.spines[side].set_visible(False)
