"""The machine code that packs weights: strided copies of any sizes and strides.

    for n0, ..., n6, vector v of lanes l:
      packed[n0*d0 + ... + n6*d6 + 4*l] = source[n0*s0 + ... + l*sl] * factor[n0*f0 + ... + 4*l]

Sizes and strides are read at run time: one kernel packs the weights of all layers alike. Lanes past
a bound are 0. With matrices M and N the source is read at each tap, 0 past a bound, and M source N'
is written (Winograd's transform of weights).
"""

from dataclasses import dataclass

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.described import Described
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target
from striate.compiler.toom_cook import Matrices, emit_transform

DIMS = 7
BOUNDS = 3
# The words (int64) of a descriptor: three for the chunks and lanes, then for each dimension its
# size and its steps in the packed array, source and factor; the lane's step in the source; the
# steps of the taps and of what becomes of them; then for each bound its limit and its coefficients
# by dimension, lane and tap.
CHUNKS, LANES, LANE_STEP = 0, 1, 2
SIZES = 3
STEPS = SIZES + DIMS
TAPS = STEPS + 3 * DIMS
LIMITS = TAPS + 4
LIMIT_WORDS = DIMS + 4
WORDS = LIMITS + BOUNDS * LIMIT_WORDS


@dataclass(frozen=True, slots=True)
class Variant:
    """What is decided when the code is written; all else is in the descriptor.

    `lanes` says how they lie in the source: side by side ("unit"), apart ("strided"), or apart with
    the innermost dimension side by side ("transposed"). `partial` says that not all taps are there.
    """

    lanes: str
    scaled: bool
    matrices: Matrices | None
    partial: bool = False


def emit_pack(variant: Variant, target: Target, chunks: int) -> Emission:
    """The kernel; its pointers are the packed array, the source, the factor, the descriptor."""
    plan = f"pack: {variant.lanes} lanes{', scaled' if variant.scaled else ''}"
    return Emission(lambda: _Pack(variant, target).write(), chunks, plan)


class _Pack(Described):
    def __init__(self, variant: Variant, target: Target) -> None:
        super().__init__(target)
        self.variant, b = variant, self.builder
        self.width = target.lanes
        self.packed, self.source, self.factor, self.table = (b.argument(k) for k in range(4))
        self.lanes = self._word(LANES)
        self.step = self._word(LANE_STEP) if variant.lanes != "unit" else "4"

    def write(self) -> Builder:
        b = self.builder
        first, last = self._share(self._word(CHUNKS), self._word(SIZES))
        blocks = b.divide(b.add(self.lanes, self.width - 1), self.width)
        with b.loop(first, last, maybe_empty=True) as outermost:
            at = self._moved(
                _Place(0, 0, 0, tuple(self._bound(bound, 0) for bound in range(BOUNDS))),
                0,
                outermost.index,
            )
            with b.loop(0, blocks) as block:
                lane = b.multiply(block.index, self.width)
                self._dimension(1, self._at_lane(at, lane), lane)
        return b

    def _bound(self, bound: int, word: int) -> Value:
        """A bound's limit (word 0) or the coefficient of a dimension, then the lane's and taps'."""
        return self._word(LIMITS + bound * LIMIT_WORDS + word)

    def _moved(self, at: "_Place", dimension: int, index: Offset) -> "_Place":
        """The place `index` steps along a dimension."""
        steps = [self._word(STEPS + k * DIMS + dimension) for k in range(3)]
        return self._stepped(at, index, steps, dimension)

    def _at_lane(self, at: "_Place", lane: Offset) -> "_Place":
        return self._stepped(at, lane, ["4", self.step, "4"], DIMS)

    def _stepped(self, at: "_Place", index: Offset, steps: list[Value], dimension: int) -> "_Place":
        b = self.builder
        packed, source, factor = (
            b.add(offset, self._times(index, step))
            for offset, step in zip((at.packed, at.source, at.factor), steps, strict=True)
        )
        room = []
        for bound, left in enumerate(at.room):
            used = self._times(index, self._bound(bound, 1 + dimension))
            room.append(b.emit(f"sub nsw i64 {left}, {used}"))
        return _Place(packed, source, factor, tuple(room))

    def _dimension(self, dimension: int, at: "_Place", lane: Offset) -> None:
        b = self.builder
        if dimension == DIMS:
            self._guarded(at, lane)
            return
        size = self._word(SIZES + dimension)
        start: Offset = 0
        if dimension == DIMS - 1 and self.variant.lanes == "transposed":
            start = self._transposed(at, lane, size)
        with b.loop(start, size, maybe_empty=True) as loop:
            self._dimension(dimension + 1, self._moved(at, dimension, loop.index), lane)

    def _counts(self, at: "_Place", lane: Offset) -> tuple[Value, Value]:
        """How many lanes there are to write, and how many of them to read.

        A bound without the lane in it holds for all lanes or for none.
        """
        b, width = self.builder, self.width
        written = b.minimum(b.emit(f"sub nsw i64 {self.lanes}, {lane}"), width)
        read = str(written)
        for bound, room in enumerate(at.room):
            coefficient = self._bound(bound, 1 + DIMS)
            along = b.emit(f"icmp ne i64 {coefficient}, 0")
            some = b.emit(f"icmp sgt i64 {room}, 0")
            every = b.emit(f"select i1 {some}, i64 {width}, i64 0")
            count = b.emit(f"select i1 {along}, i64 {room}, i64 {every}")
            read = str(b.maximum(b.minimum(read, count), 0))
        return str(written), read

    def _guarded(self, at: "_Place", lane: Offset) -> None:
        """One vector, by the short way where all its lanes are there."""
        b, width = self.builder, self.width
        written, read = self._counts(at, lane)
        full = b.emit(f"icmp eq i64 {read}, {width}")
        with b.when(full):
            self._vector(at, None, None)
        part = b.emit(f"icmp ne i64 {read}, {width}")
        with b.when(part):
            self._vector(at, self._mask(written), self._mask(read))

    def _mask(self, count: Value) -> Value:
        b, width = self.builder, self.width
        numbers = ", ".join(f"i64 {k}" for k in range(width))
        one = b.emit(f"insertelement <{width} x i64> poison, i64 {count}, i64 0")
        every = b.emit(
            f"shufflevector <{width} x i64> {one}, <{width} x i64> poison, "
            f"<{width} x i32> zeroinitializer"
        )
        return b.emit(f"icmp slt <{width} x i64> <{numbers}>, {every}")

    def _vector(self, at: "_Place", written: Value | None, read: Value | None) -> None:
        b, matrices = self.builder, self.variant.matrices
        factor = self._factor(at, read)
        down, across, below, beside = (self._word(TAPS + k) for k in range(4))
        height, breadth = [len(m[0]) for m in matrices] if matrices else (1, 1)
        columns = (
            [
                self._scaled(self._value(at, (u, v), (down, across), read), factor)
                for u in range(height)
            ]
            for v in range(breadth)
        )
        rows = emit_transform(b, matrices, columns) if matrices else zip(*columns, strict=True)
        for u, row in enumerate(rows):
            for v, value in enumerate(row):
                address = b.at(self.packed, self._tap(at.packed, u, below, v, beside))
                self._store(value, address, written)

    def _value(
        self, at: "_Place", tap: tuple[int, int], steps: tuple[Value, Value], read: Value | None
    ) -> Value:
        """What the source holds for one tap."""
        b, (u, v) = self.builder, tap
        offset = self._tap(at.source, u, steps[0], v, steps[1])
        if not self.variant.partial or tap == (0, 0):
            return self._load(offset, read)
        inside = "true"
        for bound, room in enumerate(at.room):
            used = self._tap(0, u, self._bound(bound, DIMS + 2), v, self._bound(bound, DIMS + 3))
            more = b.emit(f"icmp sgt i64 {room}, {used}")
            inside = b.emit(f"and i1 {inside}, {more}")
        # Every phase has its first tap.
        value = self._load(b.emit(f"select i1 {inside}, i64 {offset}, i64 {at.source}"), read)
        return b.emit(f"select i1 {inside}, {b.vector} {value}, {b.vector} zeroinitializer")

    def _tap(self, start: Offset, u: int, down: Value, v: int, across: Value) -> Offset:
        b = self.builder
        start = b.add(start, self._times(u, down)) if u else start
        return b.add(start, self._times(v, across)) if v else start

    def _factor(self, at: "_Place", read: Value | None) -> Value | None:
        if not self.variant.scaled:
            return None
        return self._unit(self.builder.at(self.factor, at.factor), read)

    def _scaled(self, value: Value, factor: Value | None) -> Value:
        b = self.builder
        return value if factor is None else b.emit(f"fmul {b.vector} {value}, {factor}")

    def _load(self, offset: Offset, read: Value | None) -> Value:
        b = self.builder
        if self.variant.lanes == "unit":
            return self._unit(b.at(self.source, offset), read)
        value = "poison"
        for lane in range(self.width):
            place = b.add(offset, self._times(lane, self.step)) if lane else offset
            if read is not None:
                inside = b.emit(f"extractelement <{self.width} x i1> {read}, i64 {lane}")
                place = b.emit(f"select i1 {inside}, i64 {place}, i64 0")
            scalar = b.load_scalar(b.at(self.source, place))
            value = b.emit(f"insertelement {b.vector} {value}, float {scalar}, i64 {lane}")
        if read is not None:
            value = b.emit(
                f"select <{self.width} x i1> {read}, {b.vector} {value}, {b.vector} zeroinitializer"
            )
        return value

    def _unit(self, address: Value, read: Value | None) -> Value:
        b = self.builder
        if read is None:
            return b.load(address)
        return b.call(
            b.vector,
            f"llvm.masked.load.v{self.width}f32.p0",
            f"ptr {address}",
            "i32 4",
            f"<{self.width} x i1> {read}",
            f"{b.vector} zeroinitializer",
        )

    def _store(self, value: Value, address: Value, written: Value | None) -> None:
        b = self.builder
        if written is None:
            b.store(value, address)
        else:
            b.store_masked(value, address, written)

    def _transposed(self, at: "_Place", lane: Offset, size: Value) -> Value:
        """Squares of lanes by innermost places, turned in registers; where the rest begins."""
        b, width = self.builder, self.width
        inner = DIMS - 1
        _, read = self._counts(at, lane)
        whole = b.emit(f"icmp eq i64 {read}, {width}")
        squares = b.emit(f"select i1 {whole}, i64 {b.divide(size, width)}, i64 0")
        with b.loop(0, squares, maybe_empty=True) as square:
            place = self._moved(at, inner, b.multiply(square.index, width))
            factor = self._factor(place, None)
            rows = []
            for k in range(width):
                offset = b.add(place.source, self._times(k, self.step)) if k else place.source
                rows.append(b.load(b.at(self.source, offset)))
            step = self._word(STEPS + inner)
            for k, column in enumerate(self._turned(rows)):
                offset = b.add(place.packed, self._times(k, step)) if k else place.packed
                self._store(self._scaled(column, factor), b.at(self.packed, offset), None)
        return str(b.multiply(squares, width))

    def _turned(self, rows: list[Value]) -> list[Value]:
        """The transpose of a square: halves are exchanged, then quarters, ..."""
        b, width = self.builder, self.width
        half = width // 2
        while half:
            for k in range(width):
                if k & half:
                    continue
                above, below = rows[k], rows[k + half]
                low = [i if not i & half else width + i - half for i in range(width)]
                high = [i + half if not i & half else width + i for i in range(width)]
                rows[k], rows[k + half] = (
                    b.shuffle(above, low, below),
                    b.shuffle(above, high, below),
                )
            half //= 2
        return rows


@dataclass(frozen=True, slots=True)
class _Place:
    """Byte offsets in the three arrays, and how far the bounds are."""

    packed: Offset
    source: Offset
    factor: Offset
    room: tuple[Value, ...]
