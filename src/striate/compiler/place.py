"""Which nodes share memory: parts lie in their concatenation, a sum where its residual did."""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import reduce

from striate.compiler.layout import Halo
from striate.network.graph import Computed, Concatenated, Graph, Input, Known, Node, operands
from striate.notation.ir import Affine, Apply, Equation, Expression, Read, Statement, reads
from striate.transforms.rewrite import copy_of, count_uses, rebuild, with_operands


@dataclass(frozen=True, slots=True)
class Home:
    """A node's place: the node whose memory it shares, from `feature` of the last axis on."""

    root: Node
    feature: int


def homes(graph: Graph, watched: bool = False) -> tuple[dict[int, Home], set[tuple[int, int]]]:
    """The home of every node (by id), and the (concatenation, part) pairs that need a copy first.

    Concatenations are placed from the last to the first, so that a growing one (DenseNet's) finds
    all its parts in the memory of the final one and is itself only a view of it.
    """
    placed: dict[int, Home] = {}
    copies: set[tuple[int, int]] = set()
    outputs = {id(node) for node in graph.outputs if not watched}
    nodes = graph.nodes()
    for node in reversed(nodes):
        if not isinstance(node, Concatenated):
            continue
        view = _as_view(node, placed)
        if id(node) not in placed and view is not None:
            placed[id(node)] = view
            continue
        home = placed.setdefault(id(node), Home(node, 0))
        feature = home.feature
        along_features = node.axis == len(node.shape) - 1
        for position, part in enumerate(node.parts):
            fixed = isinstance(part, Input | Known) or id(part) in placed or id(part) in outputs
            if fixed or not along_features:
                copies.add((id(node), position))
            else:
                placed[id(part)] = Home(home.root, feature)
            feature += part.shape[-1]
    for node in nodes:
        placed.setdefault(id(node), Home(node, 0))
    return placed, copies


def _as_view(node: Concatenated, placed: dict[int, Home]) -> Home | None:
    """The slice that `node` is, if its parts lie one after another in one memory already."""
    if node.axis != len(node.shape) - 1:
        return None
    found = [placed.get(id(part)) for part in node.parts]
    first = found[0]
    if first is None:
        return None
    feature = first.feature
    for part, home in zip(node.parts, found, strict=True):
        if home is None or home.root is not first.root or home.feature != feature:
            return None
        feature += part.shape[-1]
    return first


def materialise(graph: Graph, padded: set[int], watched: bool = False) -> Graph:
    """Copy what can't be written in place: outputs that are also read, and inputs that need a halo.

    `padded` holds the ids of inputs and parameters that some kernel reads past their border.
    Outputs that are only `watched` may be read, too.
    """
    uses = count_uses(graph)

    def as_output(node: Node) -> Node:
        if watched and isinstance(node, Computed | Concatenated):
            return node
        if isinstance(node, Computed) and uses[id(node)] == 1:
            return node
        return copy_of(node)

    copied = Graph(graph.inputs, tuple(as_output(node) for node in graph.outputs))
    made: dict[int, Node] = {}

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        if isinstance(node, Input | Known):
            return node

        def source(operand: Node) -> Node:
            if id(operand) in padded:
                return made.setdefault(id(operand), copy_of(operand))
            return new(operand)

        return with_operands(node, source)

    return rebuild(copied, change)


def copy_parts(graph: Graph, watched: bool = False) -> Graph:
    """A copy for each part of a concatenation that already lives elsewhere."""
    _, copies = homes(graph, watched)
    if not copies:
        return graph

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        if not isinstance(node, Concatenated):
            return with_operands(node, new)
        along_features = node.axis == len(node.shape) - 1
        if not along_features:
            return _as_sum(node, new)
        parts = enumerate(node.parts)
        moved = tuple(copy_of(new(p)) if (id(node), k) in copies else new(p) for k, p in parts)
        return Concatenated(moved, node.axis, node.label)

    return rebuild(graph, change)


def _as_sum(node: Concatenated, new: Callable[[Node], Node]) -> Computed:
    """A concatenation along any axis: `y[p] = x0[p] + x1[p - n0] + ...`; reads outside are 0."""
    names = tuple(f"n{axis}" for axis in range(len(node.shape)))
    access = [Affine(((name, 1),)) for name in names]
    terms: list[Expression] = []
    offset = 0
    for position, part in enumerate(node.parts):
        shifted = list(access)
        shifted[node.axis] = Affine(((names[node.axis], 1),), -offset)
        terms.append(Read(f"x{position}", tuple(shifted)))
        offset += part.shape[node.axis]
    extents = tuple(zip(names, node.shape, strict=True))
    total = reduce(lambda a, b: Apply("add", (a, b)), terms)
    equation = Equation(Read("y", tuple(access)), total, extents)
    named = tuple((f"x{position}", new(part)) for position, part in enumerate(node.parts))
    shapes = tuple((name, part.shape) for name, part in named)
    return Computed(Statement(equation, shapes, extents, node.shape), named, node.label)


def in_place(
    graph: Graph,
    placed: Mapping[int, Home],
    level: Mapping[int, int],
    halos: Mapping[int, Halo],
    external: Container[int],
) -> dict[int, Home]:
    """`placed`, with outputs in the memory of an operand that is read for the last time.

    An output may lie there that needs nothing of the operand but the element in its own place, as
    a residual sum does, while nobody else reads the operand: schedules write each output once,
    after they have read what it needs. Both have a margin alike, and neither is `external` to the
    arena.
    """
    readers: dict[int, set[Node]] = defaultdict(set)
    for node in graph.nodes():
        if isinstance(node, Computed):
            for operand in operands(node):
                readers[id(placed[id(operand)].root)].add(node)

    def ends(operand: Node, node: Computed) -> bool:
        others = readers[id(operand)] - {node}
        return all(level[id(other)] < level[id(node)] for other in others)

    def fits(operand: Node, node: Computed) -> bool:
        whole = all(placed[id(one)].root is one for one in (operand, node))
        inside = id(operand) not in external and id(node) not in external
        alike = operand.shape == node.shape and halos[id(operand)] == halos[id(node)]
        return whole and inside and alike and ends(operand, node)

    found = dict(placed)
    for node in graph.nodes():
        if isinstance(node, Computed):
            for operand in operands(node):
                if fits(operand, node) and _reads_its_own_place(node, operand, placed):
                    found[id(node)] = found[id(operand)]
                    break
    return found


def _reads_its_own_place(node: Computed, operand: Node, placed: Mapping[int, Home]) -> bool:
    """Whether all that an output reads in the memory of `operand` is the element in its place."""
    inside = {name: one for name, one in node.operands if placed[id(one)].root is operand}
    equation = node.statement.equation
    return all(
        inside[read.tensor] is operand and read.access == equation.output.access
        for read in reads(equation.expression)
        if read.tensor in inside
    )


def levels(graph: Graph) -> dict[int, int]:
    """How many kernels lie between the inputs and each node (by id), itself included."""
    level: dict[int, int] = {}
    for node in graph.nodes():
        below = max((level[id(operand)] for operand in operands(node)), default=-1)
        level[id(node)] = below + 1 if isinstance(node, Computed) else below
    return level
