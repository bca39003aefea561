"""How the tensors of a classifier hang on the place of its window in a larger image.

Let the window start at pixel `w` of the image, for every multiple `w` of the output stride. Along
each of the image's two directions a tensor of the classifier is one of three things:

- *sliding*: its element m, along one of its axes, hangs on `w + stride * m` alone, so that all
  windows share one grid of values;
- *windowed*: its elements hang on the window in another way (a mean over all pixels, scores);
- still: it hangs on no pixel (None).

What is asked of a sliding tensor is said by a `Demand`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from striate.network.graph import Computed, Concatenated, Graph, Input, Node, operands
from striate.notation.access import bounds
from striate.notation.ir import Affine, Position, Read, Statement, reads, walk

Pair = tuple[int, int]
# Rows, columns.
DIRECTIONS = (0, 1)


@dataclass(frozen=True, slots=True)
class Sliding:
    """Along `axis`, element m hangs on `window + stride * m` (pixels)."""

    axis: int
    stride: int


@dataclass(frozen=True, slots=True)
class Windowed:
    """There is a value for each window, which other windows don't share."""


Role = Sliding | Windowed | None
Roles = tuple[Role, Role]


@dataclass(frozen=True, slots=True)
class Demand:
    """Where a sliding tensor is read (pixels from the window's start): multiples of `lattice`.

    The window itself reads from `low` to `high`, beyond its own part where that is padded.
    """

    lattice: int = 0
    low: int = 0
    high: int = 0

    def union(self, other: "Demand") -> "Demand":
        """What both ask for."""
        if not self.lattice:
            return other
        lattice = gcd(self.lattice, other.lattice)
        return Demand(lattice, min(self.low, other.low), max(self.high, other.high))


def roles_of(graph: Graph) -> dict[int, Roles]:
    """The roles of every node (by id); the inputs are images `[b,x,y,i]`."""
    roles: dict[int, Roles] = {}
    for node in graph.nodes():
        match node:
            case Input():
                roles[id(node)] = (Sliding(1, 1), Sliding(2, 1))
            case Computed():
                rows, columns = (_role(node, roles, way) for way in DIRECTIONS)
                # A statement with one output axis for both directions slides along neither.
                match rows, columns:
                    case Sliding(axis, _), Sliding(other, _) if axis == other:
                        rows = columns = Windowed()
                roles[id(node)] = (rows, columns)
            case Concatenated(parts, axis, _):
                rows, columns = (
                    _joined([roles[id(part)][way] for part in parts], axis) for way in DIRECTIONS
                )
                roles[id(node)] = (rows, columns)
            case _:
                roles[id(node)] = (None, None)
    return roles


def _role(node: Computed, roles: Mapping[int, Roles], way: int) -> Role:
    named = dict(node.operands)
    expression = node.statement.equation.expression
    found = [(read, roles[id(named[read.tensor])][way]) for read in reads(expression)]
    if all(role is None for _, role in found):
        return None
    sliding = [(read, role) for read, role in found if isinstance(role, Sliding)]
    if any(isinstance(role, Windowed) for _, role in found):
        return Windowed()
    still = [read for read, role in found if role is None]
    numbers = {part.index for part in walk(expression) if isinstance(part, Position)}
    for axis, written in enumerate(node.statement.equation.output.access):
        index = written.index
        if index is None or index in numbers or any(_reads_at(read, index) for read in still):
            continue
        strides = {_stride(read, role, index) for read, role in sliding}
        if len(strides) == 1 and (stride := strides.pop()) > 0:
            return Sliding(axis, stride)
    return Windowed()


def _stride(read: Read, role: Sliding, index: str) -> int:
    """The pixels that `read` moves by where `index` moves by 1; 0 if it doesn't slide along it."""
    along = read.access[role.axis]
    others = [value for axis, value in enumerate(read.access) if axis != role.axis]
    if along.divisor > 1 or any(value.coefficient(index) for value in others):
        return 0
    return role.stride * along.coefficient(index)


def _reads_at(read: Read, index: str) -> bool:
    return any(value.coefficient(index) for value in read.access)


def _joined(roles: list[Role], axis: int) -> Role:
    if all(role is None for role in roles):
        return None
    first = roles[0]
    if all(role == first for role in roles) and isinstance(first, Sliding) and first.axis != axis:
        return first
    return Windowed()


def demands(
    graph: Graph, roles: Mapping[int, Roles], stride: Pair
) -> dict[int, tuple[Demand, Demand]]:
    """What is asked of every node (by id) where the windows are `stride` pixels apart.

    The image itself is asked for every pixel.
    """
    asked: dict[int, tuple[Demand, Demand]] = {}

    def ask(node: Node, way: int, demand: Demand) -> None:
        known = list(asked.get(id(node), (Demand(), Demand())))
        known[way] = known[way].union(demand)
        asked[id(node)] = (known[0], known[1])

    for way in DIRECTIONS:
        for given in graph.inputs:
            ask(given, way, Demand(1))
        for output in graph.outputs:
            if isinstance(own := roles[id(output)][way], Sliding):
                ask(output, way, _whole(output, own, stride[way]))
        for node in reversed(graph.nodes()):
            own = roles[id(node)][way]
            for operand, demand in _asks(node, own, roles, asked, way, stride[way]):
                ask(operand, way, demand)
    return asked


def _asks(
    node: Node,
    own: Role,
    roles: Mapping[int, Roles],
    asked: Mapping[int, tuple[Demand, Demand]],
    way: int,
    stride: int,
) -> Iterable[tuple[Node, Demand]]:
    """What `node` asks of its sliding operands."""
    if isinstance(node, Concatenated):
        for part in operands(node):
            role = roles[id(part)][way]
            if isinstance(own, Sliding):
                yield part, asked[id(node)][way]
            elif isinstance(role, Sliding):
                yield part, _whole(part, role, stride)
    if not isinstance(node, Computed):
        return
    named = dict(node.operands)
    statement = node.statement
    for read in reads(statement.equation.expression):
        role = roles[id(named[read.tensor])][way]
        if isinstance(role, Sliding):
            along = read.access[role.axis]
            if isinstance(own, Sliding):
                base = asked[id(node)][way]
                index = statement.equation.output.access[own.axis].index
                terms = tuple(term for term in along.terms if term[0] != index)
                along = Affine(terms, along.offset, along.divisor, along.exact)
            else:
                base = Demand(stride)
            yield named[read.tensor], _moved(base, along, role.stride, statement)


def _moved(base: Demand, along: Affine, stride: int, statement: Statement) -> Demand:
    """`base`, read at steps of `stride` pixels as `along` says."""
    extents = dict(statement.extents)
    low, high = bounds(along, extents)
    steps = [along.offset, *(c for index, c in along.terms if extents[index] > 1)]
    if along.divisor > 1:
        steps = [1]
    lattice = gcd(base.lattice, *(stride * step for step in steps))
    return Demand(lattice, base.low + stride * low, base.high + stride * high)


def _whole(node: Node, role: Sliding, stride: int) -> Demand:
    """All that a window has of `node`."""
    last = role.stride * (node.shape[role.axis] - 1)
    return Demand(gcd(stride, role.stride) if last else stride, 0, last)
