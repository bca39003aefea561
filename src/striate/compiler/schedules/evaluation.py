"""Any expression at any point, as vector code: what the generic schedule does inside its loops.

Reads that can leave their box are guarded: in a reduction by clamping the loops or masking lanes,
elsewhere by a branch or a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from striate.compiler.builder import Offset, Value
from striate.compiler.expression import COMBINE, emit_expression
from striate.compiler.schedules.addressing import Addressing, Context, Mask
from striate.compiler.schedules.guards import Guard, free_indices, guards, leaves
from striate.notation.ir import (
    IDENTITIES,
    Apply,
    Expression,
    Position,
    Read,
    Reduce,
)

# How one number more is taken in by a reduction whose order matters.
_SCALAR = {"sum": "fadd", "mean": "fadd", "prod": "fmul"}


class Evaluator(Addressing):
    """Writes expressions of one task."""

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
        return self.combine(expression, found, context.vectors)

    def combine(
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
            return self.leaf(leaf, context, [None] * context.vectors)
        needed = guards(self.task.statement, leaf)
        masks = self.masks([g for g in needed if context.lane in g.indices], context)
        condition = self.test([g for g in needed if context.lane not in g.indices], context)
        if condition is None:
            return self.leaf(leaf, context, masks)
        b = self.builder
        width = context.vectors if context.lane in free_indices(leaf) else 1
        zeros = [(b.vector, b.zero())] * width
        with b.when(condition, zeros) as branch:
            branch.following = self.leaf(leaf, context, masks)
        return branch.values

    def leaf(
        self, leaf: Read | Position | Reduce, context: Context, masks: Sequence[Mask]
    ) -> list[Value]:
        match leaf:
            case Position(index):
                return self._position(index, context)
            case Reduce():
                return context.known[leaf]
            case Read():
                return self.read(leaf, context, masks)

    def _position(self, index: str, context: Context) -> list[Value]:
        b, n = self.builder, self.lanes
        if index == context.lane:
            ramps = [self.ramp(context.places[index], 1, u) for u in range(context.vectors)]
        else:
            ramps = [self.ramp(context.places[index], 0, 0)]
        return [b.emit(f"sitofp <{n} x i32> {ramp} to {b.vector}") for ramp in ramps]

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
        condition = e.test(ready, context)
        if not indices:
            carried = [(b.vector, value) for value in state]
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
        if (
            stop == e.extents[index]
            and not rest
            and not pending
            and self._lies_along(index, context)
        ):
            start, state = self._along(index, context, state)
            if start == stop:
                return state
        carried = [(b.vector, value) for value in state]
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

    def _lies_along(self, index: str, context: Context) -> bool:
        """Whether it pays to compute the body for a vector of points along `index`."""
        e, node = self.evaluator, self.node
        if context.lane is not None or not e.lanes <= e.extents[index] or e.lanes == 1:
            return False
        if self._fused or (node.kind not in ("max", "min") and isinstance(node.body, Read)):
            return False
        for leaf in leaves(node.body):
            if isinstance(leaf, Reduce) and index in free_indices(leaf):
                return False
            if isinstance(leaf, Read) and index in free_indices(leaf):
                divided = any(a.divisor > 1 and a.coefficient(index) for a in leaf.access)
                if divided or e.task.step(leaf, index) != 4:
                    return False
                if any(index in guard.indices for guard in guards(e.task.statement, leaf)):
                    return False
        return True

    def _along(self, index: str, context: Context, state: list[Value]) -> tuple[int, list[Value]]:
        """Take in whole vectors of points along `index`, point by point; also gives their end."""
        e, b, node = self.evaluator, self.evaluator.builder, self.node
        stop = e.extents[index] // e.lanes * e.lanes
        chained = node.kind not in ("max", "min")
        kind = "float" if chained else b.vector
        total, *counts = state
        if chained:
            total = b.emit(f"extractelement {b.vector} {total}, i64 0")
        carried = [(kind, total), *[(b.vector, count) for count in counts]]
        with b.loop(0, stop, e.lanes, carried) as loop:
            inner = replace(context.at(index, loop.index), lane=index)
            found: dict[Expression, list[Value]] = {
                leaf: e.leaf(leaf, inner, [None]) for leaf in leaves(node.body)
            }
            total, *counts = loop.values
            body = e.combine(node.body, found, 1)[0]
            if chained:
                for lane in range(e.lanes):
                    point = b.emit(f"extractelement {b.vector} {body}, i64 {lane}")
                    total = b.emit(f"{_SCALAR[node.kind]} float {total}, {point}")
            else:
                total = COMBINE[node.kind](b, total, body)
            points = b.splat(float(e.lanes))
            counts = [b.emit(f"fadd {b.vector} {count}, {points}") for count in counts]
            loop.following = [total, *counts]
        total, *counts = loop.values
        if chained:
            return stop, [b.broadcast(total), *counts]
        result = total
        for lane in range(e.lanes):
            point = b.emit(f"extractelement {b.vector} {total}, i64 {lane}")
            result = COMBINE[node.kind](b, result, b.broadcast(point))
        return stop, [result, *counts]

    @property
    def _fused(self) -> bool:
        """Whether the body is a product that is added in one rounding."""
        body = self.node.body
        product = isinstance(body, Apply) and body.function == "multiply"
        return product and self.node.kind in ("sum", "mean")

    def _step(self, context: Context, state: list[Value]) -> list[Value]:
        """Take in the body at one point."""
        e, b, node = self.evaluator, self.evaluator.builder, self.node
        vectors = context.vectors
        masks = e.masks(self.masked, context)
        found: dict[Expression, list[Value]] = {
            leaf: e.leaf(leaf, context, masks) for leaf in leaves(node.body)
        }
        totals, counts = state[:vectors], state[vectors:]
        if self._fused and isinstance(node.body, Apply):
            left, right = [e.combine(part, found, vectors) for part in node.body.arguments]
            after = [
                b.fma(left[u % len(left)], right[u % len(right)], totals[u]) for u in range(vectors)
            ]
        else:
            body = e.combine(node.body, found, vectors)
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
