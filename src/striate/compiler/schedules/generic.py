"""Any equation as a loop nest: over the output's indices, vectors of lanes along one of them.

    for each index but the lane, outermost first (neighbours that lie evenly are one loop)
      for each block of vectors along the lane
        store expression

A reduction is computed as far out as the indices it depends on allow, so that a softmax sums each
row once. Where features are interleaved (a channel shuffle) the lane runs along the outer one and
the vectors are interleaved in registers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules.addressing import Context
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.chunks import (
    CYCLES_PER_SECOND,
    estimated_seconds,
    share,
    wanted_chunks,
)
from striate.compiler.schedules.evaluation import Evaluator
from striate.compiler.schedules.guards import free_indices, guards, leaves
from striate.compiler.target import Target
from striate.notation.ir import Apply, Expression, Position, Read, Reduce, Statement, reads, walk

name = "generic"

# Vectors along the lane that are computed together.
VECTORS = 4
# Up to this many interleaved features are woven together in registers.
WEAVE = 8
_HEAVY = ("exp", "log", "tanh", "sigmoid")


def seconds(statement: Statement, target: Target) -> float | None:
    """One element after another: above the estimate of any schedule that fits."""
    extents = dict(statement.extents)
    points = math.prod(extents.values())
    return 1e-9 * points * max(1, len(reads(statement.equation.expression)))


def halo(statement: Statement) -> dict[str, Halo]:
    return {}


def emit(task: Task) -> Emission:
    return _Generic(task).emission()


@dataclass(frozen=True, slots=True)
class Axis:
    """An output index, or several neighbours that step evenly in every tensor and act as one."""

    indices: tuple[str, ...]
    size: int

    @property
    def index(self) -> str:
        """The index that stands for all of them."""
        return self.indices[-1]


@dataclass(frozen=True, slots=True)
class Plan:
    """The loops `outer`, then vectors of `width` along `lane`, then `woven` inside the vectors."""

    outer: tuple[Axis, ...]
    lane: Axis | None
    woven: Axis | None
    width: int


def merge_axes(task: Task) -> list[Axis]:
    """The output's indices of more than one place, joined where they act as one."""
    statement = task.statement
    extents = dict(statement.extents)
    nodes = list(walk(statement.equation.expression))
    every = [node for node in nodes if isinstance(node, Read)]
    alone = {node.index for node in nodes if isinstance(node, Position)}
    alone |= {index for node in nodes if isinstance(node, Reduce) for index in node.indices}
    for read in every:
        alone |= {i for affine in read.access if affine.divisor > 1 for i, _ in affine.terms}
        alone |= {index for guard in guards(statement, read) for index in guard.indices}
    written = {index for affine in task.output.access for index, _ in affine.terms}
    axes: list[Axis] = []
    for index, size in statement.extents:
        if index not in written or size == 1:
            continue
        before = axes[-1].index if axes else index
        even = all(
            task.step(read, before) == task.step(read, index) * extents[index]
            for read in (*every, task.output)
        )
        if axes and even and alone.isdisjoint((before, index)):
            axes[-1] = Axis((*axes[-1].indices, index), axes[-1].size * size)
        else:
            axes.append(Axis((index,), size))
    return axes


def choose_plan(task: Task) -> tuple[Plan, float]:
    """The lane (and weave) of least cost, and its cycles on one core."""
    axes = merge_axes(task)
    choices = [(lane, woven) for lane in axes for woven in _weaves(task, axes, lane)]
    if not choices:
        plan = Plan((), None, None, 1)
        return plan, _cycles(task, plan)
    plans = []
    for lane, woven in choices:
        outer = tuple(axis for axis in axes if axis not in (lane, woven))
        width = min(task.target.lanes, 1 << (lane.size - 1).bit_length())
        plans.append(Plan(outer, lane, woven, width))
    costs = [_cycles(task, plan) for plan in plans]
    best = min(range(len(plans)), key=lambda k: (costs[k], -k))
    return plans[best], costs[best]


def _weaves(task: Task, axes: Sequence[Axis], lane: Axis) -> list[Axis | None]:
    """What can be woven into vectors along `lane`: nothing, or axes between its steps."""
    step = task.step(task.output, lane.index)
    woven = [
        axis
        for axis in axes
        if axis is not lane
        and axis.size <= WEAVE
        and task.step(task.output, axis.index) == 4
        and step == 4 * axis.size
    ]
    return [None, *woven]


def _cycles(task: Task, plan: Plan) -> float:
    """The time of the loop nest in cycles, counting reads, functions and stores."""
    trips = [(set(axis.indices), axis.size) for axis in plan.outer]
    if plan.lane:
        trips.append((set(plan.lane.indices), math.ceil(plan.lane.size / plan.width)))
    if plan.woven:
        trips.append((set(plan.woven.indices), plan.woven.size))
    step = task.step(task.output, plan.lane.index) if plan.lane else 4
    store = 1.0 if step == 4 else 2.0 if plan.woven else 1.5 * plan.width
    points = math.prod(count for _, count in trips)
    expression = task.statement.equation.expression
    return points * store + _expression_cycles(task, plan, expression, trips)


def _expression_cycles(
    task: Task, plan: Plan, expression: Expression, loops: list[tuple[set[str], int]]
) -> float:
    """The cycles of `expression` within `loops`, its reductions as far out as they can be."""
    points = math.prod(count for _, count in loops)
    total = 0.0
    for node in walk(expression):
        if isinstance(node, Apply):
            total += points * (20.0 if node.function in _HEAVY else 0.5)
        elif isinstance(node, Reduce):
            break
    extents = dict(task.statement.extents)
    for leaf in leaves(expression):
        if isinstance(leaf, Read):
            total += points * _read_cycles(task, plan, leaf)
        elif isinstance(leaf, Reduce):
            needed = free_indices(leaf)
            depth = max([k + 1 for k, (names, _) in enumerate(loops) if names & needed], default=0)
            inner = [({index}, extents[index]) for index in leaf.indices]
            total += _expression_cycles(task, plan, leaf.body, [*loops[:depth], *inner])
    return total


def _read_cycles(task: Task, plan: Plan, read: Read) -> float:
    """A load, a masked load, or one load for each lane."""
    if plan.lane is None or plan.lane.index not in free_indices(read):
        return 1.0
    index = plan.lane.index
    divided = any(a.divisor > 1 and a.coefficient(index) for a in read.access)
    if divided or task.step(read, index) != 4:
        return 1.5 * plan.width
    masked = any(index in guard.indices for guard in guards(task.statement, read))
    return 3.0 if masked else 1.0


class _Generic:
    """One emission; the fields are the decisions."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.plan, cycles = choose_plan(task)
        self.builder = Builder(replace(task.target, lanes=self.plan.width))
        addresses = [self.builder.argument(k) for k in range(len(task.layouts))]
        names = [tensor for tensor, _ in task.layouts]
        self.result = addresses[-1]
        pointers = dict(zip(names[:-1], addresses[:-1], strict=True))
        self.evaluator = Evaluator(self.builder, task, pointers)
        self.expression = task.statement.equation.expression
        heavy = any(isinstance(n, Apply) and n.function in _HEAVY for n in walk(self.expression))
        self.vectors = 1 if heavy else VECTORS
        self._split(estimated_seconds(task.statement, cycles))

    def _split(self, estimate: float) -> None:
        """Decide the chunks: over the first outer loops, and the lane if those are few."""
        wanted = wanted_chunks(estimate)
        axes = [axis for axis in (*self.plan.outer, self.plan.lane, self.plan.woven) if axis]
        wanted = min(wanted, self._affordable(estimate, axes))
        self.shared, count = 0, 1
        while wanted > 1 and self.shared < len(self.plan.outer) and count < 4 * wanted:
            count *= self.plan.outer[self.shared].size
            self.shared += 1
        self.total = count
        self.row_chunks = min(wanted, count)
        self.lane_chunks = 1
        if self.plan.lane and 2 * self.row_chunks <= wanted:
            blocks = self.plan.lane.size // (self.plan.width * self.vectors)
            affordable = self._affordable(estimate, [self.plan.lane])
            self.lane_chunks = max(1, min(wanted // self.row_chunks, blocks, affordable))

    def _affordable(self, estimate: float, axes: Sequence[Axis]) -> int:
        """How often `axes` may be cut: each piece repeats the reductions that don't depend on them.

        All that is repeated may cost a quarter of the whole.
        """
        cut = {index for axis in axes for index in axis.indices}
        loops = [(set(axis.indices), axis.size) for axis in self.plan.outer]
        repeated = [
            leaf
            for leaf in leaves(self.expression)
            if isinstance(leaf, Reduce) and free_indices(leaf).isdisjoint(cut)
        ]
        cycles = sum(_expression_cycles(self.task, self.plan, leaf, loops) for leaf in repeated)
        return max(1, int(estimate / (4 * cycles / CYCLES_PER_SECOND + 1e-12)))

    def emission(self) -> Emission:
        plan = self.plan
        chunks = self.row_chunks * self.lane_chunks
        along = f"{plan.width} lanes along {','.join(plan.lane.indices)}" if plan.lane else "1 lane"
        if plan.woven:
            along += f", {','.join(plan.woven.indices)} woven in"
        loops = " x ".join(f"{','.join(axis.indices)}={axis.size}" for axis in plan.outer) or "none"
        return Emission(
            lambda: _Generic(self.task).write(),
            chunks,
            f"{name}: loops {loops}; {along}; {chunks} chunks",
        )

    def write(self) -> Builder:
        b, plan = self.builder, self.plan
        row_chunk = b.remainder("%chunk", self.row_chunks) if self.lane_chunks > 1 else "%chunk"
        lane_chunk = b.divide("%chunk", self.row_chunks) if self.lane_chunks > 1 else 0
        places: dict[str, Offset] = {
            index: 0 for affine in self.task.output.access for index, _ in affine.terms
        }
        for axis in (*plan.outer, plan.lane, plan.woven):
            for index in axis.indices if axis else ():
                del places[index]
        context = self.evaluator.prepare(self.expression, Context(places))
        if self.shared:
            first, last = share(b, row_chunk, self.row_chunks, self.total)
            with b.loop(first, last) as loop:
                inner = self._open_shared(loop.index, context)
                self._outer(list(plan.outer[self.shared :]), inner, lane_chunk)
        else:
            self._outer(list(plan.outer), context, lane_chunk)
        return b

    def _open_shared(self, number: Value, context: Context) -> Context:
        """The point on the first outer loops that has this number."""
        b, rest = self.builder, number
        axes = self.plan.outer[: self.shared]
        for axis in reversed(axes[1:]):
            context = self._open(axis, b.remainder(rest, axis.size), context)
            rest = str(b.divide(rest, axis.size))
        context = self._open(axes[0], rest, context)
        return self.evaluator.prepare(self.expression, context)

    def _open(self, axis: Axis, place: Offset, context: Context) -> Context:
        """The point with a place on `axis`: its last index goes all the way, others stay at 0."""
        for index in axis.indices[:-1]:
            context = context.at(index, 0)
        return context.at(axis.index, place)

    def _outer(self, axes: list[Axis], context: Context, lane_chunk: Offset) -> None:
        if not axes:
            self._lane(context, lane_chunk)
            return
        axis, *rest = axes
        with self.builder.loop(0, axis.size) as loop:
            inner = self._open(axis, loop.index, context)
            self._outer(rest, self.evaluator.prepare(self.expression, inner), lane_chunk)

    def _lane(self, context: Context, lane_chunk: Offset) -> None:
        """All vectors along the lane that belong to the chunk."""
        b, lane, width = self.builder, self.plan.lane, self.plan.width
        if lane is None:
            self._point(context)
            return
        full, tail = divmod(lane.size, width)
        first, last = share(b, lane_chunk, self.lane_chunks, full)
        if isinstance(first, int) and isinstance(last, int):
            main = last // self.vectors * self.vectors
            if main > self.vectors:
                with b.loop(0, main, self.vectors) as loop:
                    self._vectors(context, loop.index, self.vectors)
            elif main:
                self._vectors(context, 0, self.vectors)
            if last > main:
                self._vectors(context, main, last - main)
        else:
            count = b.add(last, b.multiply(first, -1))
            rest = b.remainder(count, self.vectors)
            main_end = b.add(last, b.multiply(rest, -1))
            with b.loop(first, main_end, self.vectors, maybe_empty=True) as loop:
                self._vectors(context, loop.index, self.vectors)
            with b.loop(main_end, last, maybe_empty=True) as loop:
                self._vectors(context, loop.index, 1)
        if tail and isinstance(lane_chunk, int):
            self._vectors(context, full, 1, tail)
        elif tail:
            with b.when(b.emit(f"icmp eq i64 {lane_chunk}, {self.lane_chunks - 1}")):
                self._vectors(context, full, 1, tail)

    def _vectors(
        self, context: Context, block: Offset, vectors: int, active: int | None = None
    ) -> None:
        """`vectors` vectors from number `block` on."""
        lane, woven = self.plan.lane, self.plan.woven
        assert lane is not None
        context = self._open(lane, self.builder.multiply(block, self.plan.width), context)
        context = replace(context, lane=lane.index, vectors=vectors, active=active)
        context = self.evaluator.prepare(self.expression, context)
        if woven is None:
            self._point(context)
            return
        columns = []
        for place in range(woven.size):
            values = self.evaluator.values(self.expression, self._open(woven, place, context))
            columns.append(values * (vectors if len(values) == 1 else 1))
        start = self._open(woven, 0, context)
        address = self.builder.at(self.result, self._place(start))
        size = 4 * self.plan.width * woven.size
        for u in range(vectors):
            place_u = self.builder.at(address, u * size)
            self._store_woven([column[u] for column in columns], place_u, active)

    def _point(self, context: Context) -> None:
        """Compute and store the context's vectors."""
        b, lane = self.builder, self.plan.lane
        values = self.evaluator.values(self.expression, context)
        values = values * (context.vectors if len(values) == 1 else 1)
        address = b.at(self.result, self._place(context))
        step = self.task.step(self.task.output, lane.index) if lane else 4
        for u, value in enumerate(values):
            place = b.at(address, u * self.plan.width * step)
            if step == 4:
                b.store(value, place, context.active)
            else:
                self._scatter(value, place, step, context.active)

    def _place(self, context: Context) -> Offset:
        """The byte offset of the output at the point."""
        return self.evaluator.offset(self.task.layouts[-1][1], self.task.output.access, context)

    def _scatter(self, value: Value, address: Value, step: int, active: int | None) -> None:
        """One store for each lane."""
        b = self.builder
        for lane in range(self.plan.width if active is None else active):
            element = b.emit(f"extractelement {b.vector} {value}, i64 {lane}")
            b.store_scalar(element, b.at(address, lane * step))

    def _store_woven(self, values: list[Value], address: Value, active: int | None) -> None:
        """Store lane 0 of all values, then lane 1 of all, ..."""
        b, width = self.builder, self.plan.width
        count = len(values)
        for number in range(count):
            # Lane k of this vector is the element number * width + k of the weave.
            elements = [divmod(number * width + k, count) for k in range(width)]
            left = width if active is None else min(width, active * count - number * width)
            if left > 0:
                woven = self._pick(values, elements)
                b.store(woven, b.at(address, 4 * width * number), left if left < width else None)

    def _pick(self, values: list[Value], elements: Sequence[tuple[int, int]]) -> Value:
        """The vector whose lane k is lane `elements[k][0]` of `values[elements[k][1]]`."""
        b, width = self.builder, self.plan.width
        result = "poison"
        for number in sorted({source for _, source in elements}):
            lanes = [
                width + lane if source == number else k for k, (lane, source) in enumerate(elements)
            ]
            mask = ", ".join(f"i32 {lane}" for lane in lanes)
            result = b.emit(
                f"shufflevector {b.vector} {result}, {b.vector} {values[number]}, "
                f"<{width} x i32> <{mask}>"
            )
        return result
