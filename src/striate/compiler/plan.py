"""From a fused graph to a plan: a schedule for every statement, and a place for every tensor."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from striate.compiler.arena import Lifetime, allocate
from striate.compiler.choose import choose
from striate.compiler.layout import NO_HALO, Halo, Layout
from striate.compiler.place import Home, copy_parts, homes, levels, materialise
from striate.compiler.program import Pointer
from striate.compiler.schedules.base import Schedule, Task
from striate.compiler.target import Target
from striate.network.graph import Computed, Graph, Input, Parameter, operands
from striate.notation.ir import Statement

# Slack after the arena's last buffer: vector loads may touch what lies just behind a tensor.
SLACK = 256


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of its own: its layout, its offset in the arena (bytes), and the phase it is born in."""

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


def make_plan(graph: Graph, target: Target, algorithm: str = "auto") -> Plan:
    """Choose schedules, give every tensor a place, and order the work into phases."""
    chosen: dict[tuple[Statement, tuple[bool, ...]], Schedule] = {}

    def schedule_of(node: Computed) -> Schedule:
        known = tuple(isinstance(operand, Parameter) for _, operand in node.operands)
        key = (node.statement, known)
        if key not in chosen:
            chosen[key] = choose(node, target, algorithm)
        return chosen[key]

    margins = _halos(graph, schedule_of)
    sources = [n for n in graph.nodes() if isinstance(n, Input | Parameter)]
    padded = {id(n) for n in sources if margins.get(id(n), NO_HALO) != NO_HALO}
    graph = copy_parts(materialise(graph, padded))
    margins = _halos(graph, schedule_of)
    placed, _ = homes(graph)
    level = levels(graph)
    layouts, buffers, pointers, arena = _memory(graph, placed, margins, level)
    work = []
    for node in graph.nodes():
        if isinstance(node, Computed):
            named = [(name, layouts[id(operand)]) for name, operand in node.operands]
            named.append((node.statement.equation.output.tensor, layouts[id(node)]))
            task = Task(node.statement, tuple(named), target)
            work.append(Work(node, schedule_of(node), task, level[id(node)]))
    return Plan(graph, tuple(work), buffers, pointers, layouts, arena)


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
    graph: Graph, placed: dict[int, Home], margins: dict[int, Halo], level: dict[int, int]
) -> tuple[dict[int, Layout], tuple[Buffer, ...], dict[int, Pointer], int]:
    """The layout and the address of every node, the arena's buffers, and its size."""
    halos: dict[int, Halo] = defaultdict(lambda: NO_HALO)
    born: dict[int, int] = {}
    died: dict[int, int] = defaultdict(int)
    nodes = graph.nodes()
    for node in nodes:
        root = id(placed[id(node)].root)
        halos[root] = _union(halos[root], margins.get(id(node), NO_HALO))
        if isinstance(node, Computed):
            born[root] = min(born.get(root, level[id(node)]), level[id(node)])
            died[root] = max(died[root], level[id(node)])
            for operand in operands(node):
                home = id(placed[id(operand)].root)
                died[home] = max(died[home], level[id(node)])
    external = {id(node): k for k, node in enumerate(graph.outputs)}
    inputs = {id(node): k for k, node in enumerate(graph.inputs)}
    constants = {id(n): k for k, n in enumerate(n for n in nodes if isinstance(n, Parameter))}
    roots = [
        n for n in nodes if placed[id(n)].root is n and id(n) in born and id(n) not in external
    ]
    shapes = {id(n): Layout.padded(n.shape, halos[id(n)]) for n in roots}
    lives = [Lifetime(shapes[id(n)].nbytes, born[id(n)], died[id(n)]) for n in roots]
    offsets, arena = allocate(lives)
    offset_of = {id(n): offset for n, offset in zip(roots, offsets, strict=True)}
    layouts: dict[int, Layout] = {}
    pointers: dict[int, Pointer] = {}
    for node in nodes:
        if id(node) in inputs or id(node) in constants or id(node) in external:
            layouts[id(node)] = Layout.dense(node.shape)
            space = (
                Pointer("input", inputs[id(node)], 0)
                if id(node) in inputs
                else Pointer("constant", constants[id(node)], 0)
                if id(node) in constants
                else Pointer("output", external[id(node)], 0)
            )
            pointers[id(node)] = space
            continue
        home = placed[id(node)]
        base = shapes[id(home.root)]
        layouts[id(node)] = Layout(node.shape, base.strides, base.halo)
        pointers[id(node)] = Pointer("arena", 0, offset_of[id(home.root)] + home.feature * 4)
    buffers = tuple(Buffer(shapes[id(n)], offset_of[id(n)], born[id(n)]) for n in roots)
    return layouts, buffers, pointers, arena + SLACK
