"""From a fused graph to a plan: a schedule for every statement, and a place for every tensor."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from striate.compiler.arena import Lifetime, allocate
from striate.compiler.choose import choose
from striate.compiler.layout import NO_HALO, Halo, Layout
from striate.compiler.place import Home, copy_parts, homes, in_place, levels, materialise
from striate.compiler.program import Pointer
from striate.compiler.schedules.base import Schedule, Task
from striate.compiler.target import Target
from striate.network.graph import Computed, Graph, Input, Known, operands
from striate.notation.ir import Statement

# Slack after the arena's last buffer: vector loads may touch what lies just behind a tensor.
SLACK = 256


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of its own: its layout, its offset in the arena (bytes), the phase it is born in."""

    layout: Layout
    offset: int
    born: int


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel to be: a node, its schedule and task, and the phase it runs in."""

    node: Computed
    schedule: Schedule
    task: Task
    phase: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided about a graph before code is written."""

    graph: Graph
    work: tuple[Work, ...]
    buffers: tuple[Buffer, ...]
    pointers: dict[int, Pointer]
    layouts: dict[int, Layout]
    arena_bytes: int
    watched: bool = False


def make_plan(graph: Graph, target: Target, algorithm: str = "auto", watched: bool = False) -> Plan:
    """Choose schedules, give every tensor a place, and order the work into phases.

    With `watched` the outputs are tensors like others, whose place may be taken when they were
    read for the last time.
    """
    chosen: dict[tuple[Statement, tuple[bool, ...]], Schedule] = {}

    def schedule_of(node: Computed) -> Schedule:
        known = tuple(isinstance(operand, Known) for _, operand in node.operands)
        key = (node.statement, known)
        if key not in chosen:
            chosen[key] = choose(node, target, algorithm)
        return chosen[key]

    margins = _halos(graph, schedule_of)
    sources = [n for n in graph.nodes() if isinstance(n, Input | Known)]
    padded = {id(n) for n in sources if margins.get(id(n), NO_HALO) != NO_HALO}
    graph = copy_parts(materialise(graph, padded, watched), watched)
    margins = _halos(graph, schedule_of)
    placed, _ = homes(graph, watched)
    level = levels(graph)
    pointers = _external(graph, watched)
    layouts, buffers, arena = _memory(graph, placed, margins, level, pointers)
    work = []
    for node in graph.nodes():
        if isinstance(node, Computed):
            named = [(name, layouts[id(operand)]) for name, operand in node.operands]
            named.append((node.statement.equation.output.tensor, layouts[id(node)]))
            task = Task(node.statement, tuple(named), target)
            work.append(Work(node, schedule_of(node), task, level[id(node)]))
    return Plan(graph, tuple(work), buffers, pointers, layouts, arena, watched)


def _halos(graph: Graph, schedule_of: Callable[[Computed], Schedule]) -> dict[int, Halo]:
    """The margin of zeros that the readers of each node (by id) ask for, all together."""
    margins: dict[int, Halo] = {}
    for node in graph.nodes():
        if not isinstance(node, Computed):
            continue
        asked = schedule_of(node).halo(node.statement)
        for name, operand in node.operands:
            if name in asked:
                margins[id(operand)] = _union(margins.get(id(operand), NO_HALO), asked[name])
    return margins


def _union(a: Halo, b: Halo) -> Halo:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def _memory(
    graph: Graph,
    placed: dict[int, Home],
    margins: dict[int, Halo],
    level: dict[int, int],
    pointers: dict[int, Pointer],
) -> tuple[dict[int, Layout], tuple[Buffer, ...], int]:
    """The layout of every node, the arena's buffers and its size; `pointers` gets the addresses."""
    halos: dict[int, Halo] = defaultdict(lambda: NO_HALO)
    for node in graph.nodes():
        root = id(placed[id(node)].root)
        halos[root] = _union(halos[root], margins.get(id(node), NO_HALO))
    placed = in_place(graph, placed, level, halos, pointers)
    layouts = {id(n): Layout.dense(n.shape) for n in graph.nodes() if id(n) in pointers}
    lives = _lifetimes(graph, placed, level)
    inner = [node for node in graph.nodes() if id(node) not in pointers]
    roots = [node for node in inner if placed[id(node)].root is node]
    bases = {id(n): Layout.padded(n.shape, halos[id(n)]) for n in roots}
    wanted = [Lifetime(bases[id(n)].nbytes, *lives[id(n)]) for n in roots]
    places, arena = allocate(wanted)
    offsets = {id(n): place for n, place in zip(roots, places, strict=True)}
    for node in inner:
        home = placed[id(node)]
        base = bases[id(home.root)]
        layouts[id(node)] = Layout(node.shape, base.strides, base.halo)
        pointers[id(node)] = Pointer("arena", 0, offsets[id(home.root)] + 4 * home.feature)
    buffers = tuple(Buffer(bases[id(n)], offsets[id(n)], lives[id(n)][0]) for n in roots)
    return layouts, buffers, arena + SLACK


def _external(graph: Graph, watched: bool) -> dict[int, Pointer]:
    """The addresses of the nodes (by id) that don't live in the arena."""
    known = [node for node in graph.nodes() if isinstance(node, Known)]
    pointers = {id(node): Pointer("constant", k, 0) for k, node in enumerate(known)}
    pointers |= {id(node): Pointer("input", k, 0) for k, node in enumerate(graph.inputs)}
    outputs = () if watched else graph.outputs
    return pointers | {id(node): Pointer("output", k, 0) for k, node in enumerate(outputs)}


def _lifetimes(
    graph: Graph, placed: dict[int, Home], level: dict[int, int]
) -> dict[int, tuple[int, int]]:
    """The first and the last phase in which the memory of each root (by id) is used."""
    lives: dict[int, tuple[int, int]] = {}
    for node in graph.nodes():
        if not isinstance(node, Computed):
            continue
        phase = level[id(node)]
        for used in (node, *operands(node)):
            root = id(placed[id(used)].root)
            first, last = lives.get(root, (phase, phase))
            lives[root] = (min(first, phase), max(last, phase))
    return lives
