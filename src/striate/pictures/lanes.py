"""Where the boxes of an architecture lie: units as lanes side by side, in columns."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from striate.network.outline import Kind, Unit
from striate.notation.ir import Shape

# Pixels: a box, a bar that joins, what lies between boxes, a lane that only a line takes.
BOX, BAR, GAP = 16, 11, 9
_ACROSS, _LINE = 7, 18
# Between units, where the module's name and the shape stand; beside a single box the name does.
_HEAD, _SHORT_HEAD = 22, 14
# A box is as wide as its words.
_CHARACTER, _MARGIN, _LEAST = 5.0, 9, 44.0


@dataclass(frozen=True)
class Lanes:
    """Where the blocks of a unit lie: lanes of boxes, then lanes of mere lines; rows from the top.

    Places are pixels from the middle of the lanes of boxes.
    """

    unit: Unit
    entry: Shape

    @cached_property
    def rows(self) -> list[int]:
        """The row of each block: one below the lowest that it reads."""
        found: list[int] = []
        for block in self.unit.blocks:
            found.append(1 + max([found[n] for n in block.operands if n >= 0], default=-1))
        return found

    @cached_property
    def _taken(self) -> tuple[list[list[int]], list[tuple[int, int]], int]:
        """The lanes under each block, the (source, reader) that have a line's, and how many boxes'.

        A line takes its own lane where boxes stand in its way.
        """
        blocks = self.unit.blocks
        lanes: list[list[int]] = [[] for _ in blocks]
        lines: list[tuple[int, int]] = []
        count = 0

        def visit(number: int) -> None:
            nonlocal count
            own = []
            for source in blocks[number].operands:
                if source >= 0 and not lanes[source]:
                    visit(source)
                    own += lanes[source]
                elif self.rows[number] - (self.rows[source] if source >= 0 else -1) > 1:
                    lines.append((source, number))
            if not own:
                own.append(count)
                count += 1
            lanes[number] = own

        visit(len(blocks) - 1)
        return lanes, lines, count

    @cached_property
    def box(self) -> float:
        """The width of a box: that of the longest text in the unit."""
        return max(
            _LEAST, _CHARACTER * max(len(block.text) for block in self.unit.blocks) + _MARGIN
        )

    @property
    def half(self) -> float:
        """Half the width of the lanes of boxes."""
        return self._taken[2] * (self.box + _ACROSS) / 2

    @property
    def right(self) -> float:
        """The right edge of all lanes."""
        return self.half + _LINE * len(self._taken[1])

    def middle(self, number: int) -> float:
        """The middle of a block: that of who reads it, but a join is as wide as all it reads."""
        lines = self._taken[1]
        readers = [
            k
            for k, block in enumerate(self.unit.blocks)
            if number in block.operands and (number, k) not in lines
        ]
        alone = [k for k in readers if len(self.unit.blocks[k].operands) == 1]
        if len(readers) > 1 or alone:
            return sum(map(self.middle, readers)) / len(readers)
        lanes = self._taken[0][number]
        return (lanes[0] + lanes[-1] + 1) * (self.box + _ACROSS) / 2 - self.half

    def line(self, source: int, reader: int) -> float | None:
        """Where the line between them comes down, if it has a lane of its own."""
        lines = self._taken[1]
        if (source, reader) not in lines:
            return None
        return self.half + _LINE * (lines.index((source, reader)) + 0.4)

    def span(self, number: int) -> tuple[float, float]:
        """The first and the last place where a line comes down on a block."""
        places = [self.middle(number)]
        for source in self.unit.blocks[number].operands:
            line = self.line(source, number)
            places.append(line if line is not None else self.middle(max(source, 0)))
        return min(places), max(places)

    @property
    def head(self) -> float:
        """The room above the unit; a single box has its name beside it."""
        return _HEAD if len(self.unit.blocks) > 1 else _SHORT_HEAD

    @property
    def margin(self) -> float:
        """The room within the unit above and below its blocks."""
        return GAP if len(self.unit.blocks) > 1 else 0

    def row_height(self, row: int) -> int:
        """The height of the highest block in a row."""
        pairs = zip(self.unit.blocks, self.rows, strict=True)
        kinds = {block.kind for block, at in pairs if at == row}
        return BAR if kinds == {Kind.JOIN} else BOX

    @property
    def height(self) -> float:
        """The height of the unit."""
        rows = range(max(self.rows) + 1)
        return sum(map(self.row_height, rows)) + GAP * (len(rows) - 1) + 2 * self.margin


def divided(every: Sequence[Lanes], count: int) -> list[list[Lanes]]:
    """At most `count` columns, the highest of them about as low as can be."""
    heights = [lanes.height + lanes.head for lanes in every]
    limit = sum(heights) / count
    while True:
        cuts, used = [0], 0.0
        for place, height in enumerate(heights):
            if used and used + height > limit:
                cuts.append(place)
                used = 0.0
            used += height
        if len(cuts) <= count:
            return [list(every[a:b]) for a, b in itertools.pairwise([*cuts, len(every)])]
        limit *= 1.02
