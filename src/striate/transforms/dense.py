"""Make a classifier dense: the graph that gives what it says of every window of a larger image.

The rewriting knows no layers, only equations. A strided read of a sliding tensor,
    y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b, s*p+u-a, s*q+v-a, i])
becomes, where windows start less than `s` steps apart, a dilated one (the a-trous rule): what the
output stride leaves of the stride stays a stride, the rest dilates all reads of y to come. What
hangs on the window as a whole gets axes for the windows: a mean over all pixels
    y[b,i] = sum[u,v](x[b,u,v,i]) / n
becomes a pooling whose window is as large as the classifier's image was at that depth,
    y[b,r,c,i] = sum[u,v](x[b, k*r+d*u, k*c+d*v, i]) / n
and a fully connected layer a convolution (`unflatten`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from striate.network.graph import Computed, Concatenated, Graph, Input, Node
from striate.notation.access import affine
from striate.notation.ir import Affine, Equation, Expression, Read, Shape, Statement
from striate.transforms.rewrite import copy_of, fresh, transform
from striate.transforms.sliding import (
    DIRECTIONS,
    Demand,
    Pair,
    Roles,
    Sliding,
    Windowed,
    demands,
    roles_of,
)
from striate.transforms.unflatten import unflatten

# What the axes of windows are called, those of rows before those of columns.
_NAMES = ("r", "c")


class NotDenseError(ValueError):
    """A network that no equation of a larger image describes."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many windows before and behind its own a window's value may hang on, by padding."""

    before: Pair
    behind: Pair

    @property
    def padded(self) -> bool:
        """Whether any window sees pixels outside itself: no layer then pads at its border."""
        return any((*self.before, *self.behind))


class Sheet:
    """A classifier laid out for windows that start `stride` (rows, columns) pixels apart.

    `graph` takes one image `[b,x,y,i]` and gives scores `[b,j]`; at most `stride` pixels of an
    image lie between the starts of two windows. By default the stride is the network's own, that
    of its coarsest feature map. Raises NotDenseError for another output.
    """

    def __init__(self, graph: Graph, stride: Pair | None = None) -> None:
        self.native = unflatten(graph)
        self.roles = roles_of(self.native)
        self.stride = stride or self.own_stride()
        self.demands = demands(self.native, self.roles, self.stride)
        (output,) = self.native.outputs
        if len(output.shape) != 2 or self.roles[id(output)] != (Windowed(), Windowed()):
            raise NotDenseError(
                f"the network's output is {list(output.shape)}; expected scores [b, class] that "
                "hang on rows and columns of its image"
            )

    def own_stride(self) -> Pair:
        """The pixels between neighbours of the coarsest feature map."""
        strides = [1, 1]
        for node in self.native.nodes():
            for way in DIRECTIONS:
                role = self.roles[id(node)][way]
                if isinstance(role, Sliding) and node.shape[role.axis] > 1:
                    strides[way] = max(strides[way], role.stride)
        return strides[0], strides[1]

    def reach(self) -> Reach:
        """How far a window's value reaches into those beside it."""
        before, behind = [0, 0], [0, 0]
        for node in self.native.nodes():
            for way in DIRECTIONS:
                role = self.roles[id(node)][way]
                if isinstance(role, Sliding):
                    demand = self.demands[id(node)][way]
                    last = role.stride * (node.shape[role.axis] - 1)
                    before[way] = max(before[way], -(demand.low // self.stride[way]))
                    behind[way] = max(behind[way], -((last - demand.high) // self.stride[way]))
        return Reach((before[0], before[1]), (behind[0], behind[1]))

    def graph(self, cells: Pair) -> Graph:
        """The graph for so many windows: image `[b,x,y,i]` to scores `[b,r,c,j]`.

        The image has the pixels from the first window's first to the last one's last.
        """
        return _Rewriting(self, cells).graph()


class _Rewriting:
    """One dense graph in the making; `made` holds the successors of the native nodes (by id)."""

    def __init__(self, sheet: Sheet, cells: Pair) -> None:
        self.sheet, self.cells = sheet, cells
        self.made: dict[int, Node] = {}

    def graph(self) -> Graph:
        native = self.sheet.native
        for node in native.nodes():
            self.made[id(node)] = self.successor(node)
        inputs = tuple(
            node for given in native.inputs if isinstance(node := self.made[id(given)], Input)
        )
        return Graph(inputs, tuple(self.made[id(output)] for output in native.outputs))

    def successor(self, node: Node) -> Node:
        roles = self.sheet.roles[id(node)]
        match node:
            case Input(name, _):
                return Input(name, self.shape(node, roles, node))
            case Computed() if roles != (None, None):
                return self.computed(node, roles, node)
            case Concatenated(parts, axis, label):
                axis += roles.count(Windowed()) if axis else 0
                return Concatenated(tuple(self.part(part, node) for part in parts), axis, label)
            case _:
                return node

    def part(self, part: Node, whole: Concatenated) -> Node:
        """The successor of a part of a concatenation, laid out as the whole is."""
        lattice = [[demand.lattice for demand in self.asked(node)] for node in (part, whole)]
        roles = self.sheet.roles[id(whole)]
        if self.sheet.roles[id(part)] == roles and lattice[0] == lattice[1]:
            return self.made[id(part)]
        return self.computed(replace(copy_of(part), label=whole.label), roles, whole)

    def asked(self, node: Node) -> tuple[Demand, Demand]:
        return self.sheet.demands.get(id(node), (Demand(), Demand()))

    def computed(self, node: Computed, roles: Roles, place: Node) -> Computed:
        """The native `node` with its output laid out by `roles` and by what is asked of `place`."""
        statement = node.statement
        output = statement.equation.output
        native = dict(statement.extents)
        names = list(fresh(_NAMES, set(native)).values())
        named = {name: (operand, self.made[id(operand)]) for name, operand in node.operands}
        slides = [
            output.access[role.axis].index if isinstance(role, Sliding) else None for role in roles
        ]
        shape = self.shape(node, roles, place)

        def change(part: Expression) -> Expression | None:
            if not isinstance(part, Read):
                return None
            operand = named[part.tensor][0]
            access = list(part.access)
            windows: list[Affine] = []
            for way in DIRECTIONS:
                role = self.sheet.roles[id(operand)][way]
                if isinstance(role, Windowed):
                    windows.append(affine([(names[way], 1)]))
                elif isinstance(role, Sliding):
                    fine = self.asked(operand)[way].lattice
                    index, step = slides[way], self.asked(place)[way].lattice
                    if index is None:
                        index, step = names[way], self.sheet.stride[way]
                    along = part.access[role.axis]
                    dilated = _dilated(along, (index, step), role.stride, fine, native)
                    if dilated is None:
                        raise NotDenseError(
                            f"{node.label} divides an index of a feature map of stride "
                            f"{role.stride}; the output stride must be a multiple of that"
                        )
                    access[role.axis] = dilated
            return Read(part.tensor, _with_windows(access, windows))

        expression = transform(statement.equation.expression, change)
        windows = [
            affine([(name, 1)])
            for name, role in zip(names, roles, strict=True)
            if isinstance(role, Windowed)
        ]
        access = _with_windows(list(output.access), windows)
        sizes = dict(native) | dict(zip(names, self.cells, strict=True))
        for role, index in zip(roles, slides, strict=True):
            if isinstance(role, Sliding) and index is not None:
                sizes[index] = shape[access.index(output.access[role.axis])]
        used = [index for value in access for index, _ in value.terms]
        extents = tuple((i, sizes[i]) for i in dict.fromkeys([*used, *native]))
        shapes = tuple((name, new.shape) for name, (_, new) in named.items())
        equation = Equation(Read(output.tensor, access), expression, extents)
        operands = tuple((name, new) for name, (_, new) in named.items())
        return Computed(Statement(equation, shapes, extents, shape), operands, node.label)

    def shape(self, node: Node, roles: Roles, place: Node) -> Shape:
        """The shape of the successor of `node`."""
        shape, windows = list(node.shape), []
        for way in DIRECTIONS:
            role = roles[way]
            if isinstance(role, Sliding):
                # From the first window's first element to the last window's last one.
                last = role.stride * (node.shape[role.axis] - 1)
                last += self.sheet.stride[way] * (self.cells[way] - 1)
                shape[role.axis] = last // self.asked(place)[way].lattice + 1
            elif isinstance(role, Windowed):
                windows.append(self.cells[way])
        return (*shape[:1], *windows, *shape[1:])


def _dilated(
    along: Affine, step: tuple[str, int], stride: int, fine: int, native: Mapping[str, int]
) -> Affine | None:
    """`along`, by elements `stride` pixels apart, on a grid of `fine` pixels; None without one.

    The window's place is an index that moves by `step` pixels; it replaces the index of this name.
    """
    index, pixels = step
    place = (index, pixels // fine * along.divisor)
    if along.divisor > 1:
        if stride != fine:
            return None
        return affine([place, *along.terms], along.offset, along.divisor, along.exact)
    # An index of one place moves nothing, but schedules look for it in the data.
    rest = [(i, stride * c // fine if native[i] > 1 else 1) for i, c in along.terms if i != index]
    return affine([place, *rest], stride * along.offset // fine)


def _with_windows(access: list[Affine], windows: list[Affine]) -> tuple[Affine, ...]:
    """The axes of windows stand behind that of images."""
    return (*access[:1], *windows, *access[1:])
