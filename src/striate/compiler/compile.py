"""A graph to a program: transform, plan, write each kernel once, compile what the cache lacks."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from striate.compiler.arena import Lifetime, allocate
from striate.compiler.batches import chained
from striate.compiler.border import emit_border
from striate.compiler.cache import code_cache
from striate.compiler.choose import pools
from striate.compiler.codegen import version
from striate.compiler.layout import NO_HALO, Layout
from striate.compiler.parallel import Compilers
from striate.compiler.place import levels
from striate.compiler.plan import Plan, Work, make_plan
from striate.compiler.prefetch import with_prefetches
from striate.compiler.preparation import Preparer
from striate.compiler.program import Kernel, Pointer, Program, Step, View
from striate.compiler.schedules import generic, planes, staged
from striate.compiler.schedules.base import Ahead, Emission, Task
from striate.compiler.sections import Section, sections
from striate.compiler.target import Target
from striate.network.graph import Computed, Graph, Known, Node
from striate.notation import multiply_adds, to_text
from striate.notation.ir import Statement
from striate.transforms.features_last import features_last
from striate.transforms.fold import fold
from striate.transforms.fuse import fuse
from striate.transforms.nest import nest
from striate.transforms.pool_first import pool_first
from striate.transforms.read_through import read_through


def compile_graph(
    graph: Graph, target: Target | None = None, *, algorithm: str = "auto", watched: bool = False
) -> Program:
    """The program that computes `graph`'s outputs from its inputs on `target` (default: this CPU).

    Algorithm "auto" takes the fastest way. "direct" forbids Winograd's algorithms, which move
    results by a few 1e-6 of the largest; sums may still be taken in another order, such as those
    of a pooling before those of a convolution. With "exact" every sum is taken in its equation's
    order. Raises ValueError for another.
    With `watched` the outputs stay in the arena, as views that last for as long as the network
    itself needs them: nothing is copied, and they take no memory of their own.
    """
    target = target or Target.host()
    arrays = graph.arrays()
    graph = _transformed(graph, target, algorithm)
    found = [Section(graph, 1)] if watched else sections(graph, target)
    with Compilers(target) as compilers:
        kernels = _Kernels(target, compilers)
        preparer = Preparer(arrays)
        programs = []
        for section in found:
            plan = make_plan(section.graph, target, algorithm, watched)
            programs.append((_Assembly(plan, preparer, kernels).program(), section.parts))
        program = replace(
            programs[0][0] if len(programs) == programs[0][1] == 1 else chained(programs),
            kernels=tuple(kernels.made),
            preparation=preparer.preparation(target, kernels.compiled),
        )
        fetching = with_prefetches(program, preparer.nbytes, target)
        return _with_code(fetching, compilers.finish())


def arena_bytes(graph: Graph, target: Target | None = None, *, algorithm: str = "auto") -> int:
    """The memory that the activations of `graph` would take (bytes); no code is written."""
    target = target or Target.host()
    return make_plan(_transformed(graph, target, algorithm), target, algorithm).arena_bytes


def _with_code(program: Program, made: Mapping[str, bytes]) -> Program:
    """The program with the code that its kernels lacked, which the cache now has."""
    for digest, code in made.items():
        code_cache().put(digest, code)
    symbols = {_symbol(digest): code for digest, code in made.items()}
    preparation = program.preparation
    if preparation is not None:
        kernels = _filled(preparation.program.kernels, symbols)
        preparation = replace(preparation, program=replace(preparation.program, kernels=kernels))
    return replace(program, kernels=_filled(program.kernels, symbols), preparation=preparation)


def _filled(kernels: tuple[Kernel, ...], codes: Mapping[str, bytes]) -> tuple[Kernel, ...]:
    return tuple(replace(k, code=codes.get(k.symbol, k.code)) for k in kernels)


def _symbol(digest: str) -> str:
    return f"striate_{digest[:24]}"


def _transformed(graph: Graph, target: Target, algorithm: str) -> Graph:
    """The graph folded and fused, and fused again where contractions had their axes moved."""
    reorder = algorithm != "exact"
    fused = fuse(pool_first(read_through(fold(graph), reorder=reorder), reorder=reorder))
    moved = features_last(fused)

    def pays(nested: Computed) -> bool:
        statement = nested.statement
        if planes.pays(statement, target) or staged.pays(statement, target):
            return True
        return pools(nested, target, algorithm)

    return nest(fused if moved is fused else fuse(moved), pays)


def _ir(emission: Emission, symbol: str) -> str:
    return emission.write().function(symbol)


@dataclass(slots=True)
class _Kernels:
    """The kernels of a program, each made the first time it is asked for."""

    target: Target
    compilers: Compilers
    made: list[Kernel] = field(default_factory=list)
    emissions: dict[object, tuple[int, Emission]] = field(default_factory=dict)

    def number(
        self, key: object, emit: Callable[[], Emission], schedule: str, equation: str
    ) -> tuple[int, Emission]:
        """The number of the kernel for `key`, and what it was made of."""
        if key not in self.emissions:
            emission = emit()
            self.emissions[key] = (len(self.made), emission)
            self.made.append(self.compiled(key, emission, schedule, equation))
        return self.emissions[key]

    def compiled(self, key: object, emission: Emission, schedule: str, equation: str) -> Kernel:
        """The kernel of an emission, whose code depends on `key` and the target alone.

        Where the cache lacks the code it is on its way, and the kernel has none yet.
        """
        text = "\n".join((repr(key), version(), repr(self.target)))
        digest = hashlib.sha256(text.encode()).hexdigest()
        symbol = _symbol(digest)
        write = partial(_ir, emission, symbol)
        code = code_cache().get(digest)
        if code is None:
            self.compilers.add(digest, write)
        scratch, room = emission.scratch_bytes, emission.room
        return Kernel(symbol, schedule, equation, emission.plan, write, code or b"", scratch, room)


@dataclass(slots=True)
class _Assembly:
    """A program being put together from a plan, with the kernels of all plans."""

    plan: Plan
    preparer: Preparer
    kernels: _Kernels
    packed: dict[tuple[int, Statement | None], Pointer] = field(default_factory=dict)
    made: dict[tuple[int, Task], Pointer] = field(default_factory=dict)
    phases: dict[int, list[Step]] = field(default_factory=dict)
    # What is made besides the graph's tensors. Until all readers are known, pointer k is to
    # number k, counted from 1, and not into the arena.
    extras: list[Lifetime] = field(default_factory=list)
    level: dict[int, int] = field(default_factory=dict)

    def program(self) -> Program:
        """The program without its kernels and its preparation."""
        self.level = levels(self.plan.graph)
        for buffer in self.plan.buffers:
            if buffer.layout.halo != NO_HALO:
                self._add_border(buffer.layout, buffer.offset, buffer.born)
        # Constants lie in the order in which they are read.
        for work in sorted(self.plan.work, key=lambda work: work.phase):
            self._add_work(work)
        graph = self.plan.graph
        watched = self.plan.watched
        places, extra_bytes = allocate(self.extras)
        return Program(
            (),
            tuple(
                tuple(self._placed(step, places) for step in self.phases[key])
                for key in sorted(self.phases)
            ),
            None,
            None,
            self.plan.arena_bytes + extra_bytes,
            tuple((node.name, node.shape) for node in graph.inputs),
            () if watched else tuple(node.shape for node in graph.outputs),
            views=tuple(self._view(node) for node in graph.outputs) if watched else (),
        )

    def _placed(self, step: Step, places: list[int]) -> Step:
        """The step with the extras at their places behind the graph's tensors."""
        end = self.plan.arena_bytes
        pointers = [
            Pointer("arena", 0, end + places[pointer.index - 1] + pointer.offset)
            if pointer.space == "arena" and pointer.index
            else pointer
            for pointer in step.pointers
        ]
        return replace(step, pointers=tuple(pointers))

    def _view(self, node: Node) -> View:
        """Where `node` lies in the arena, and after which phase."""
        number = sorted(self.phases).index(2 * self.level[id(node)])
        layout = self.plan.layouts[id(node)]
        offset = self.plan.pointers[id(node)].offset + layout.origin
        return View(number, offset, node.shape, layout.strides)

    def _add_border(self, layout: Layout, offset: int, phase: int) -> None:
        def emit() -> Emission:
            return emit_border(layout, self.kernels.target)

        text = f"halo of {'x'.join(map(str, layout.shape))}"
        kernel, emission = self.kernels.number(("border", layout), emit, "border", text)
        pointers = (Pointer("arena", 0, offset),)
        self._step(2 * phase, Step("(border)", kernel, emission.chunks, pointers, 0, 0))

    def _add_work(self, work: Work) -> None:
        task, statement = work.task, work.node.statement
        text = to_text(statement.equation)
        key = (work.schedule.name, task)
        kernel, emission = self.kernels.number(
            key, lambda: work.schedule.emit(task), work.schedule.name, text
        )
        pointers = [self._operand(name, work, emission) for name, _ in work.node.operands]
        pointers.append(self.plan.pointers[id(work.node)])
        moved = 4 * (math.prod(statement.shape) + sum(math.prod(s) for _, s in statement.shapes))
        step = Step(
            work.node.label,
            kernel,
            emission.chunks,
            tuple(pointers),
            multiply_adds(statement),
            moved,
        )
        self._step(2 * work.phase, step)

    def _operand(self, name: str, work: Work, emission: Emission) -> Pointer:
        """Where the kernel finds an operand: in place, or packed before the run or within it."""
        packing, matrices = emission.packing.get(name), emission.transforms.get(name)
        node = dict(work.node.operands)[name]
        if isinstance(node, Known):
            balance = emission.balances.get(name)
            return self.preparer.constant(node, packing, matrices, balance)
        if name in emission.ahead:
            return self._read(self._ahead(node, emission.ahead[name]), work)
        if packing is None:
            return self.plan.pointers[id(node)]
        key = (id(node), packing)
        if key not in self.packed:
            output = packing.equation.output.tensor
            layouts = ((name, work.task.layout(name)), (output, Layout.dense(packing.shape)))
            task = Task(packing, layouts, self.kernels.target)
            text = to_text(packing.equation)
            emit = partial(generic.emit, task)
            kernel, packer = self.kernels.number(("generic", task), emit, "generic", text)
            # Odd phases lie between the levels of the graph: here the weights are just there, and
            # no reader of them has begun.
            phase = 2 * self.level[id(node)] + 1
            place = self._extra(4 * math.prod(packing.shape), phase)
            moved = 8 * math.prod(packing.shape)
            pointers = (self.plan.pointers[id(node)], place)
            self._step(phase, Step("(packing)", kernel, packer.chunks, pointers, 0, moved))
            self.packed[key] = place
        return self._read(self.packed[key], work)

    def _ahead(self, node: Node, ahead: Ahead) -> Pointer:
        """What is made of a node before its readers run, once for all that want the same."""
        key = (id(node), ahead.task)
        if key not in self.made:
            text = to_text(ahead.task.statement.equation)
            made = ("ahead", ahead.task)
            kernel, emission = self.kernels.number(made, lambda: ahead.emission, "balance", text)
            phase = 2 * self.level[id(node)] + 1
            place = self._extra(ahead.nbytes, phase)
            pointers = (self.plan.pointers[id(node)], place)
            moved = 4 * math.prod(node.shape) + ahead.nbytes
            step = Step("(balance)", kernel, emission.chunks, pointers, 0, moved)
            self._step(phase, step)
            self.made[key] = place
        return self.made[key]

    def _extra(self, nbytes: int, phase: int) -> Pointer:
        """Memory for what is made in a phase."""
        self.extras.append(Lifetime(nbytes, phase, phase))
        return Pointer("arena", len(self.extras), 0)

    def _read(self, extra: Pointer, work: Work) -> Pointer:
        """The pointer to what was made, which lasts until this work is done."""
        made = self.extras[extra.index - 1]
        last = max(made.last, 2 * work.phase)
        self.extras[extra.index - 1] = replace(made, last=last)
        return extra

    def _step(self, phase: int, step: Step) -> None:
        self.phases.setdefault(phase, []).append(step)
