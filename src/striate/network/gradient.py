"""The gradient of a graph: its statements' gradients, from its end to where it is asked for."""

from collections.abc import Iterator, Mapping

from striate.network.graph import Computed, Concatenated, Graph, Node
from striate.notation import adjoint, parse, resolve
from striate.notation.ir import Shape, Statement

_SLICE = "d_x[{left}] = d_y[{right}]"
_SUM = "y[{all}] = x[{all}] + z[{all}]"


def gradient(output: Node, operand: Node, cotangent: Node) -> Node | None:
    """The derivative by `operand` of the sum of `output * cotangent`; None if it is no part of it.

    `cotangent` has the shape of `output`, the result that of `operand`. The nodes of the forward
    pass that a gradient reads (a max pool's input, a relu's output) stay among its operands.
    """
    order = Graph((), (output,)).nodes()
    towards = _depending(order, operand)
    derivatives: dict[Node, Node] = {output: cotangent}
    for node in reversed(order):
        derivative = derivatives.get(node)
        if derivative is None or node is operand:
            continue
        for target, part in _parts(node, derivative, towards):
            known = derivatives.get(target)
            derivatives[target] = part if known is None else _added(known, part)
    return derivatives.get(operand)


def depends(node: Node, operand: Node) -> bool:
    """Whether `node` is computed from `operand`."""
    return node in _depending(Graph((), (node,)).nodes(), operand)


def _depending(order: tuple[Node, ...], operand: Node) -> set[Node]:
    """The nodes of `order`, operands first, that are computed from `operand`, and itself."""
    found = {operand}
    for node in order:
        match node:
            case Computed(_, named, _) if any(one in found for _, one in named):
                found.add(node)
            case Concatenated(parts, _, _) if any(part in found for part in parts):
                found.add(node)
            case _:
                pass
    return found


def _parts(node: Node, derivative: Node, towards: set[Node]) -> Iterator[tuple[Node, Node]]:
    """The operands of `node` in `towards`, each with what reaches it through `node`."""
    match node:
        case Computed(statement, operands, label):
            output = statement.equation.output.tensor
            given = dict(operands) | {output: node, f"d_{output}": derivative}
            for name, operand in operands:
                if operand in towards:
                    yield operand, _drawn(adjoint(statement, name), given, f"d_{label}")
        case Concatenated(parts, axis, label):
            start = 0
            for part in parts:
                if part in towards:
                    cut = _cut(part.shape, node.shape, axis, start)
                    yield part, _drawn(cut, {"d_y": derivative}, f"d_{label}")
                start += part.shape[axis]
        case _:
            pass


def _drawn(statement: Statement, given: Mapping[str, Node], label: str) -> Computed:
    operands = tuple([(name, given[name]) for name, _ in statement.shapes])
    return Computed(statement, operands, label)


def _cut(part: Shape, whole: Shape, axis: int, start: int) -> Statement:
    """The part that begins at `start` of `axis`."""
    indices = [f"i{number}" for number in range(len(whole))]
    places = [f"{index}+{start}" if k == axis else index for k, index in enumerate(indices)]
    text = _SLICE.format(left=",".join(indices), right=",".join(places))
    return resolve(parse(text, sizes={indices[axis]: part[axis]}), {"d_y": whole})


def _added(left: Node, right: Node) -> Computed:
    indices = ",".join(f"i{number}" for number in range(len(left.shape)))
    statement = resolve(parse(_SUM.format(all=indices)), {"x": left.shape, "z": right.shape})
    return _drawn(statement, {"x": left, "z": right}, "d_sum")
