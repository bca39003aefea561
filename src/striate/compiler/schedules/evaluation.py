"""Any expression at any point, as vector code: what the generic schedule does inside its loops.

A `Context` says where the point is. At most one index, the lane, runs along the vectors; all others
are one number. Reads that can leave their box are guarded: in a reduction by clamping the loops or
masking lanes, elsewhere by a branch or a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.expression import COMBINE, emit_expression
from striate.compiler.layout import Layout
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.guards import Guard, free_indices, guards, leaves
from striate.notation.ir import (
    IDENTITIES,
    Affine,
    Apply,
    Expression,
    Position,
    Read,
    Reduce,
)

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


class Evaluator:
    """Writes expressions of one task; `pointers` are the operands' addresses."""

    def __init__(self, builder: Builder, task: Task, pointers: Mapping[str, Value]) -> None:
        self.builder, self.task, self.pointers = builder, task, pointers
        self.lanes = builder.target.lanes
        self.extents = dict(task.statement.extents)
        self.operands = dict(task.layouts[:-1])

    # Expressions

    def prepare(
        self, expression: Expression, context: Context, bound: frozenset[str] = frozenset()
    ) -> Context:
        """Compute the reductions in `expression` that need no index that is still to be opened.

        `bound` are indices that reductions around `expression` will open.
        """
        match expression:
            case Apply(_, arguments):
                for argument in arguments:
                    context = self.prepare(argument, context, bound)
            case Reduce(_, indices, body):
                needed = free_indices(expression)
                if needed & bound or not needed <= set(context.places):
                    context = self.prepare(body, context, bound | set(indices))
                elif expression not in context.known:
                    values = self._reduction(expression, context)
                    context = replace(context, known={**context.known, expression: values})
            case _:
                pass
        return context

    def values(self, expression: Expression, context: Context) -> list[Value]:
        """The expression outside any reduction: the context's vectors, or one for all."""
        context = self.prepare(expression, context)
        found: dict[Expression, list[Value]] = {
            leaf: self._guarded_leaf(leaf, context) for leaf in leaves(expression)
        }
        return self._combine(expression, found, context.vectors)

    def _combine(
        self, expression: Expression, found: Mapping[Expression, list[Value]], vectors: int
    ) -> list[Value]:
        """The function of leaves that `expression` is, for each vector in which they differ."""
        if all(len(values) == 1 for values in found.values()):
            vectors = 1

        def vector(number: int) -> Value:
            return emit_expression(
                self.builder, expression, lambda leaf: found[leaf][number % len(found[leaf])]
            )

        return [vector(number) for number in range(vectors)]

    def _guarded_leaf(self, leaf: Read | Position | Reduce, context: Context) -> list[Value]:
        """A leaf outside any reduction; a read outside its box is 0."""
        if not isinstance(leaf, Read):
            return self._leaf(leaf, context, [None] * context.vectors)
        needed = guards(self.task.statement, leaf)
        masks = self._masks([g for g in needed if context.lane in g.indices], context)
        condition = self._test([g for g in needed if context.lane not in g.indices], context)
        if condition is None:
            return self._leaf(leaf, context, masks)
        b = self.builder
        width = context.vectors if context.lane in free_indices(leaf) else 1
        zeros = [(b.vector, b.zero())] * width
        with b.when(condition, zeros) as branch:
            branch.following = self._leaf(leaf, context, masks)
        return branch.values

    def _leaf(
        self, leaf: Read | Position | Reduce, context: Context, masks: Sequence[Mask]
    ) -> list[Value]:
        match leaf:
            case Position(index):
                return self._position(index, context)
            case Reduce():
                return context.known[leaf]
            case Read():
                return self._read(leaf, context, masks)

    def _position(self, index: str, context: Context) -> list[Value]:
        b, n = self.builder, self.lanes
        if index == context.lane:
            ramps = [self._ramp(context.places[index], 1, u) for u in range(context.vectors)]
        else:
            ramps = [self._ramp(context.places[index], 0, 0)]
        return [b.emit(f"sitofp <{n} x i32> {ramp} to {b.vector}") for ramp in ramps]

    # Reads

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

    def _read(self, read: Read, context: Context, masks: Sequence[Mask]) -> list[Value]:
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
            ramp = self._ramp(base, affine.coefficient(context.lane), u)
            place = b.emit(f"udiv <{n} x i32> {ramp}, splat (i32 {affine.divisor})")
            place = b.emit(f"zext <{n} x i32> {place} to {wide}")
            place = b.emit(f"mul {wide} {place}, splat (i64 {stride})")
            total = b.emit(f"add {wide} {place}, {total}")
        return total

    def _ramp(self, base: Offset, step: int, u: int) -> Value:
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

    # Guards

    def _test(self, needed: Sequence[Guard], context: Context) -> Value | None:
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

    def _masks(self, needed: Sequence[Guard], context: Context) -> list[Mask]:
        """For each vector the lanes in which all of `needed` hold; None for all active lanes."""
        return [self._mask(needed, context, u) for u in range(context.vectors)]

    def _mask(self, needed: Sequence[Guard], context: Context, u: int) -> Mask:
        b, integers = self.builder, f"<{self.lanes} x i32>"
        truths = "" if context.active is None else self.first_lanes(context.active)
        for guard in needed:
            assert context.lane is not None
            step = dict(guard.terms)[context.lane]
            ramp = self._ramp(self.linear(guard.terms, guard.offset, context), step, u)
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

    # Reductions

    def _reduction(self, node: Reduce, context: Context) -> list[Value]:
        """The reduction at the point, in the order of its indices, each output one chain."""
        b = self.builder
        if context.lane is None or context.lane not in free_indices(node):
            context = context.uniform()
        context = self.prepare(node.body, context, frozenset(node.indices))
        found = [leaf for leaf in leaves(node.body) if isinstance(leaf, Read)]
        needed = [guard for read in found for guard in guards(self.task.statement, read)]
        needed = list(dict.fromkeys(needed))
        masked = [guard for guard in needed if context.lane in guard.indices]
        pending = [guard for guard in needed if context.lane not in guard.indices]
        state = [b.splat(IDENTITIES[node.kind])] * context.vectors
        counted = node.kind == "mean" and bool(needed)
        if counted:
            state += [b.zero()] * context.vectors
        nest = _Nest(self, node, masked, counted)
        state = nest.loops(list(node.indices), pending, context, state)
        if node.kind != "mean":
            return state
        counts = state[context.vectors :]
        if not counted:
            points = 1
            for index in node.indices:
                points *= self.extents[index]
            counts = [b.splat(float(points))] * context.vectors
        return [self._mean(total, count) for total, count in zip(state, counts, strict=False)]

    def _mean(self, total: Value, count: Value) -> Value:
        b = self.builder
        count = COMBINE["max"](b, count, b.splat(1.0))
        return b.emit(f"fdiv {b.vector} {total}, {count}")


@dataclass(frozen=True, slots=True)
class _Nest:
    """The loops of one reduction; `masked` are the guards that hold lane by lane."""

    evaluator: Evaluator
    node: Reduce
    masked: Sequence[Guard]
    counted: bool

    def loops(
        self, indices: list[str], pending: list[Guard], context: Context, state: list[Value]
    ) -> list[Value]:
        """Open the loops of `indices` where `pending` can hold, and take in every point."""
        e, b = self.evaluator, self.evaluator.builder
        ready = [guard for guard in pending if guard.indices.isdisjoint(indices)]
        pending = [guard for guard in pending if guard not in ready]
        condition = e._test(ready, context)
        carried = [(b.vector, value) for value in state]
        if not indices:
            if condition is None:
                return self._step(context, state)
            with b.when(condition, carried) as branch:
                branch.following = self._step(context, branch.values)
            return branch.values
        index, *rest = indices
        clamps = [g for g in pending if g.divisor == 1 and g.indices.isdisjoint(rest)]
        pending = [guard for guard in pending if guard not in clamps]
        start, stop = e.range_within(index, clamps, context)
        if condition is not None:
            stop = b.emit(f"select i1 {condition}, i64 {stop}, i64 {start}")
        if (start, stop) == (0, 1):
            return self._open(index, 0, rest, pending, context, state)
        with b.loop(start, stop, 1, carried, maybe_empty=bool(clamps) or bool(condition)) as loop:
            values = list(loop.values)
            loop.following = self._open(index, loop.index, rest, pending, context, values)
        return loop.values

    def _open(
        self,
        index: str,
        place: Offset,
        rest: list[str],
        pending: list[Guard],
        context: Context,
        state: list[Value],
    ) -> list[Value]:
        inner = context.at(index, place)
        inner = self.evaluator.prepare(self.node.body, inner, frozenset(rest))
        return self.loops(rest, pending, inner, state)

    def _step(self, context: Context, state: list[Value]) -> list[Value]:
        """Take in the body at one point."""
        e, b, node = self.evaluator, self.evaluator.builder, self.node
        vectors = context.vectors
        masks = e._masks(self.masked, context)
        found: dict[Expression, list[Value]] = {
            leaf: e._leaf(leaf, context, masks) for leaf in leaves(node.body)
        }
        totals, counts = state[:vectors], state[vectors:]
        fused = (
            isinstance(node.body, Apply)
            and node.body.function == "multiply"
            and node.kind in ("sum", "mean")
        )
        if fused and isinstance(node.body, Apply):
            left, right = [e._combine(part, found, vectors) for part in node.body.arguments]
            after = [
                b.fma(left[u % len(left)], right[u % len(right)], totals[u]) for u in range(vectors)
            ]
        else:
            body = e._combine(node.body, found, vectors)
            after = [COMBINE[node.kind](b, totals[u], body[u % len(body)]) for u in range(vectors)]
        if self.counted:
            after += [b.emit(f"fadd {b.vector} {count}, {b.splat(1.0)}") for count in counts]
        return [
            self._where(masks[u % vectors], new, old)
            for u, (new, old) in enumerate(zip(after, state, strict=True))
        ]

    def _where(self, mask: Mask, new: Value, old: Value) -> Value:
        b = self.evaluator.builder
        if mask is None:
            return new
        return b.emit(f"select <{b.target.lanes} x i1> {mask}, {b.vector} {new}, {b.vector} {old}")
