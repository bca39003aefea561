"""A batch section by section: early layers for a few images at a time, late ones for many.

Where the activations of many images outgrow the cache, every kernel writes to memory what the next
one reads from there. With few images at a time they meet in the cache; what it costs is that the
weights are read once for each part of the batch. Early layers have large activations and few
weights, late ones the reverse. So a network is cut where a single tensor passes, and each of its
sections divides the batch as it is best for it: the whole batch goes through one section, part
after part, before it enters the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from striate.compiler.batches import divided
from striate.compiler.target import Target
from striate.network.graph import Computed, Concatenated, Graph, Input, Known, Node, operands
from striate.transforms.rewrite import with_operands

# The share of the last-level cache that activations find free: strangers use it, and weights pass.
_SHARE = 0.12
# What every kernel costs in each part: threads wait for each other, chunks are fewer (s).
_KERNEL = 15e-6
# A step of the program for each kernel and part.
_MOST_PARTS = 256


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a network: `graph` takes one of `parts` equal parts of the batch."""

    graph: Graph
    parts: int


def sections(graph: Graph, target: Target) -> list[Section]:
    """The network as sections; one of one part where dividing the batch wins nothing."""
    batches = {given.shape[:1] for given in graph.inputs}
    if len(batches) != 1 or not (batch := next(iter(batches))) or batch[0] < 2:
        return [Section(graph, 1)]
    numbers = [n for n in range(1, min(batch[0], _MOST_PARTS) + 1) if batch[0] % n == 0]
    cuts = _cuts(graph)
    # For every number of parts of the last piece: the least time so far, and the numbers till then.
    best: dict[int, tuple[float, tuple[int, ...]]] = dict.fromkeys(numbers, (0.0, ()))
    for piece in split(graph, cuts):
        loads = _loads(piece)
        apart = len(numbers) > 1 and divided(piece, numbers[-1]) is not None
        crossing = 2 * sum(_nbytes(given) for given in piece.inputs) / target.bytes_per_second
        best = {
            parts: min(
                (before + (way[-1:] not in ((), (parts,))) * crossing + seconds, (*way, parts))
                for before, way in best.values()
            )
            for parts in numbers
            if parts == 1 or apart
            for seconds in [_seconds(loads, parts, target)]
        }
    _, way = min(best.values())
    pairs = zip(cuts, way, way[1:], strict=False)
    changes = [cut for cut, parts, following in pairs if parts != following]
    chosen = [parts for parts, _ in groupby(way)]
    return [
        Section(_part(whole, parts), parts)
        for whole, parts in zip(split(graph, changes), chosen, strict=True)
    ]


def _part(graph: Graph, parts: int) -> Graph:
    part = divided(graph, parts) if parts > 1 else graph
    assert part is not None, "what takes each image by itself"
    return part


def split(graph: Graph, cuts: Sequence[Computed]) -> list[Graph]:
    """The graph in sections: each ends with one of `cuts`, which is the input of the next."""
    ends = {id(cut) for cut in cuts}
    made: dict[int, Node] = {}
    given, found = graph.inputs, []
    for node in graph.nodes():
        made[id(node)] = with_operands(node, lambda operand: made[id(operand)])
        if id(node) in ends:
            assert isinstance(node, Computed)
            found.append(Graph(given, (made[id(node)],)))
            following = Input(node.label, node.shape)
            made[id(node)], given = following, (following,)
    return [*found, Graph(given, tuple(made[id(output)] for output in graph.outputs))]


def _cuts(graph: Graph) -> list[Computed]:
    """The nodes through which alone passes whatever the later ones need, in order.

    What is concatenated is none: as an input of the next section it would have to be copied.
    """
    nodes = graph.nodes()
    joined = {id(part) for node in nodes if isinstance(node, Concatenated) for part in node.parts}
    kept = joined | {id(output) for output in graph.outputs}
    return [
        node
        for node, living in _alive(graph)
        if isinstance(node, Computed) and living == {id(node)} and id(node) not in kept
    ]


def _alive(graph: Graph) -> list[tuple[Node, set[int]]]:
    """Every node with the data (by id) that later ones or the caller need when it is made.

    What is concatenated lives on in the whole.
    """
    nodes = graph.nodes()
    last = dict.fromkeys(map(id, graph.outputs), len(nodes))
    for number, node in reversed(list(enumerate(nodes))):
        until = last[id(node)] if isinstance(node, Concatenated) else number
        for operand in operands(node):
            last[id(operand)] = max(until, last.get(id(operand), 0))
    living = {id(given) for given in graph.inputs if id(given) in last}
    found = []
    for number, node in enumerate(nodes):
        if isinstance(node, Computed):
            living.add(id(node))
        living = {one for one in living if last[one] > number}
        found.append((node, living))
    return found


@dataclass(frozen=True, slots=True)
class _Load:
    """The bytes of a node for all images: its weights, what it moves besides, all held then."""

    weights: int
    moved: int
    held: int


def _loads(piece: Graph) -> list[_Load]:
    sizes = {id(node): _nbytes(node) for node in piece.nodes()}
    living, found = {id(given) for given in piece.inputs}, []
    for node, following in _alive(piece):
        if isinstance(node, Computed):
            known = [isinstance(operand, Known) for _, operand in node.operands]
            read = [sizes[id(operand)] for _, operand in node.operands]
            weights = sum(size for size, fixed in zip(read, known, strict=True) if fixed)
            held = sum(sizes[one] for one in living | following)
            found.append(_Load(weights, sum(read) - weights + sizes[id(node)], held))
        living = following
    return found


def _seconds(loads: Sequence[_Load], parts: int, target: Target) -> float:
    """What the activations and weights that the caches lack take, and all kernels (s)."""
    budget, total = _SHARE * target.l3 * parts, 0.0
    for load in loads:
        missing = max(0.0, 1 - budget / load.held)
        total += (parts * load.weights + missing * load.moved) / target.bytes_per_second
        total += parts * _KERNEL
    return total


def _nbytes(node: Node) -> int:
    return 4 * math.prod(node.shape)
