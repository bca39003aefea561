"""Where a point's operands lie, how they are loaded, and where they exist.

A `Context` says where the point is. At most one index, the lane, runs along the vectors; all others
are one number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Layout
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.guards import Guard
from striate.notation.ir import Affine, Read, Reduce

Mask = Value | None


@dataclass(frozen=True, slots=True)
class Context:
    """A point: the place of every open index, and `vectors` of lanes of which `active` count.

    The lane's place is that of the first lane. `known` holds reductions that are already computed,
    as one vector where the lane does not matter, else one for each of `vectors`.
    """

    places: Mapping[str, Offset]
    lane: str | None = None
    vectors: int = 1
    active: int | None = None
    known: Mapping[Reduce, list[Value]] = field(default_factory=dict)

    def at(self, index: str, place: Offset) -> "Context":
        """The same point but for one index."""
        return replace(self, places={**self.places, index: place})

    def uniform(self) -> "Context":
        """The same point for code that does not depend on the lane."""
        return replace(self, lane=None, vectors=1, active=None)


class Addressing:
    """Writes the loads and the guards of one task; `pointers` are the operands' addresses."""

    def __init__(self, builder: Builder, task: Task, pointers: Mapping[str, Value]) -> None:
        self.builder, self.task, self.pointers = builder, task, pointers
        self.lanes = builder.target.lanes
        self.extents = dict(task.statement.extents)
        self.operands = dict(task.layouts[:-1])

    def linear(self, terms: Sequence[tuple[str, int]], offset: int, context: Context) -> Offset:
        """`terms + offset` at the point (at its first lane)."""
        b = self.builder
        total: Offset = 0
        for index, coefficient in terms:
            total = b.add(total, b.multiply(context.places[index], coefficient))
        return b.add(total, offset)

    def offset(self, layout: Layout, access: Sequence[Affine], context: Context) -> Offset:
        """The bytes from the start of a tensor to the element (of the first lane) at the point."""
        b = self.builder
        total: Offset = layout.origin
        for stride, affine in zip(layout.strides, access, strict=True):
            place = self.linear(affine.terms, affine.offset, context)
            total = b.add(total, b.multiply(self._quotient(place, affine), stride))
        return total

    def read(self, read: Read, context: Context, masks: Sequence[Mask]) -> list[Value]:
        """Elements that exist wherever the masks hold; lanes beyond are 0."""
        b, layout = self.builder, self.operands[read.tensor]
        offset: Offset = layout.origin
        step, varies = 0, False
        divided: list[tuple[int, Affine]] = []
        for stride, affine in zip(layout.strides, read.access, strict=True):
            along = affine.coefficient(context.lane) if context.lane else 0
            varies = varies or along != 0
            if along and affine.divisor > 1:
                divided.append((stride, affine))
                continue
            place = self.linear(affine.terms, affine.offset, context)
            offset = b.add(offset, b.multiply(self._quotient(place, affine), stride))
            step += stride * along
        pointer = self._at(self.pointers[read.tensor], offset)
        if not varies:
            return [b.broadcast(b.load_scalar(pointer))]
        if step == 4 and not divided:
            places = [self._at(pointer, 4 * self.lanes * u) for u in range(context.vectors)]
            return [
                self._load(place, mask, context.active)
                for place, mask in zip(places, masks, strict=True)
            ]
        return [
            self._gather(pointer, self._spread(step, divided, u, context), mask, context.active)
            for u, mask in enumerate(masks)
        ]

    def _quotient(self, place: Offset, affine: Affine) -> Offset:
        """The place divided; guards have seen to it that it is not negative."""
        return self.builder.divide(place, affine.divisor)

    def _spread(
        self, step: int, divided: Sequence[tuple[int, Affine]], u: int, context: Context
    ) -> Value:
        """The byte offset of every lane of vector `u` from the read's pointer."""
        b, n = self.builder, self.lanes
        wide = f"<{n} x i64>"
        numbers = ", ".join(f"i64 {step * (u * n + lane)}" for lane in range(n))
        total = f"<{numbers}>"
        for stride, affine in divided:
            base = self.linear(affine.terms, affine.offset, context)
            assert context.lane is not None
            ramp = self.ramp(base, affine.coefficient(context.lane), u)
            place = b.emit(f"udiv <{n} x i32> {ramp}, splat (i32 {affine.divisor})")
            place = b.emit(f"zext <{n} x i32> {place} to {wide}")
            place = b.emit(f"mul {wide} {place}, splat (i64 {stride})")
            total = b.emit(f"add {wide} {place}, {total}")
        return total

    def ramp(self, base: Offset, step: int, u: int) -> Value:
        """`base + step * lane` in the lanes of vector `u`, as integers."""
        b, n = self.builder, self.lanes
        ramp = f"<{', '.join(f'i32 {step * (u * n + lane)}' for lane in range(n))}>"
        if isinstance(base, int):
            return f"<{', '.join(f'i32 {base + step * (u * n + lane)}' for lane in range(n))}>"
        narrow = b.emit(f"trunc i64 {base} to i32")
        one = b.emit(f"insertelement <{n} x i32> poison, i32 {narrow}, i64 0")
        wide = b.emit(
            f"shufflevector <{n} x i32> {one}, <{n} x i32> poison, <{n} x i32> zeroinitializer"
        )
        return b.emit(f"add <{n} x i32> {wide}, {ramp}") if step else wide

    def _at(self, pointer: Value, offset: Offset) -> Value:
        """The address, which may lie outside where a mask says that it is not used."""
        if offset == 0:
            return pointer
        return self.builder.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def _load(self, pointer: Value, mask: Mask, active: int | None) -> Value:
        b, n = self.builder, self.lanes
        if mask is None:
            return b.load(pointer, active)
        return b.call(
            b.vector,
            f"llvm.masked.load.v{n}f32.p0",
            f"ptr {pointer}",
            "i32 4",
            f"<{n} x i1> {mask}",
            f"{b.vector} zeroinitializer",
        )

    def _gather(self, pointer: Value, spread: Value, mask: Mask, active: int | None) -> Value:
        b, n = self.builder, self.lanes
        places = b.emit(f"getelementptr i8, ptr {pointer}, <{n} x i64> {spread}")
        return b.call(
            b.vector,
            f"llvm.masked.gather.v{n}f32.v{n}p0",
            f"<{n} x ptr> {places}",
            "i32 4",
            f"<{n} x i1> {mask or self.first_lanes(active)}",
            f"{b.vector} zeroinitializer",
        )

    def first_lanes(self, active: int | None) -> Value:
        """The mask of the first `active` lanes; of all for None."""
        count = self.lanes if active is None else active
        return f"<{', '.join(f'i1 {int(lane < count)}' for lane in range(self.lanes))}>"

    def test(self, needed: Sequence[Guard], context: Context) -> Value | None:
        """Whether all of `needed` hold at the point, as i1; None where there is nothing to ask."""
        b = self.builder
        result: Value | None = None
        for guard in needed:
            place = self.linear(guard.terms, guard.offset, context)
            for comparison in self._comparisons(guard, place):
                truth = b.emit(f"icmp {comparison}")
                result = truth if result is None else b.emit(f"and i1 {result}, {truth}")
        return result

    def _comparisons(self, guard: Guard, place: Offset) -> list[str]:
        found = []
        if guard.low is not None:
            found.append(f"sge i64 {place}, {guard.low}")
        if guard.high is not None:
            found.append(f"sle i64 {place}, {guard.high}")
        if guard.divisor > 1:
            # Of a negative place this says anything: another guard keeps it out.
            found.append(f"eq i64 {self.builder.remainder(place, guard.divisor)}, 0")
        return found

    def masks(self, needed: Sequence[Guard], context: Context) -> list[Mask]:
        """For each vector the lanes in which all of `needed` hold; None for all active lanes."""
        return [self._mask(needed, context, u) for u in range(context.vectors)]

    def _mask(self, needed: Sequence[Guard], context: Context, u: int) -> Mask:
        b, integers = self.builder, f"<{self.lanes} x i32>"
        truths = "" if context.active is None else self.first_lanes(context.active)
        for guard in needed:
            assert context.lane is not None
            step = dict(guard.terms)[context.lane]
            ramp = self.ramp(self.linear(guard.terms, guard.offset, context), step, u)
            comparisons = []
            if guard.low is not None:
                comparisons.append(f"sge {integers} {ramp}, splat (i32 {guard.low})")
            if guard.high is not None:
                comparisons.append(f"sle {integers} {ramp}, splat (i32 {guard.high})")
            if guard.divisor > 1:
                rest = b.emit(f"urem {integers} {ramp}, splat (i32 {guard.divisor})")
                comparisons.append(f"eq {integers} {rest}, zeroinitializer")
            for comparison in comparisons:
                truth = b.emit(f"icmp {comparison}")
                truths = b.emit(f"and <{self.lanes} x i1> {truths}, {truth}") if truths else truth
        return truths if needed else None

    def range_within(
        self, index: str, clamps: Sequence[Guard], context: Context
    ) -> tuple[Offset, Offset]:
        """Where along `index` all of `clamps` hold at the point; it may be empty."""
        b = self.builder
        start: Offset = 0
        stop: Offset = self.extents[index]
        for guard in clamps:
            step = dict(guard.terms)[index]
            sign, size = (1, step) if step > 0 else (-1, -step)
            others = [term for term in guard.terms if term[0] != index]
            place = b.multiply(self.linear(others, guard.offset, context), -sign)
            low, high = (guard.low, guard.high) if step > 0 else (guard.high, guard.low)
            # size * index >= sign * low + place, and size * index <= sign * high + place
            if low is not None:
                least = b.maximum(b.add(place, sign * low), 0)
                start = b.maximum(start, b.divide(b.add(least, size - 1), size))
            if high is not None:
                most = b.maximum(b.add(place, sign * high + size), 0)
                stop = b.minimum(stop, b.divide(most, size))
        return start, stop
