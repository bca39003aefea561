"""Code whose sizes are words (int64) of a descriptor, read at run time: one kernel serves all."""

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.target import Target


class Described:
    """A kernel being written; `table` is the address of its descriptor."""

    def __init__(self, target: Target) -> None:
        self.builder = Builder(target)
        self.table: Value = ""

    def _word(self, number: int) -> Value:
        b = self.builder
        return b.emit(f"load i64, ptr {b.at(self.table, 8 * number)}, align 8, !invariant.load !0")

    def _times(self, a: Offset, b: Value) -> Value:
        return self.builder.emit(f"mul nsw i64 {a}, {b}")

    def _share(self, chunks: Value, total: Value) -> tuple[Value, Value]:
        """The range of `total` things that belongs to the chunk, evenly."""
        b = self.builder
        first = b.emit(f"udiv i64 {self._times('%chunk', total)}, {chunks}")
        last = b.emit(f"udiv i64 {self._times(b.add('%chunk', 1), total)}, {chunks}")
        return first, last
