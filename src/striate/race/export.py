"""A traced network as an ONNX model: each equation is written as the operator that it is.

Images are `x: float32[b, 3, H, W]`, the answer is `y`. The batch stays open, features come first
(NCHW), and nothing is folded or fused: what can be made of the graph is for its readers to find.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

import numpy as np

from striate.compiler.schedules.contraction import Contraction, match_contraction
from striate.layers.arguments import AnyArray
from striate.network.graph import Computed, Concatenated, Graph, Input, Node, Parameter
from striate.notation import to_text
from striate.notation.ir import Affine, Apply, Constant, Expression, Read, Reduce, Shape

OPSET = 17
_IR_VERSION = 8

_ELEMENTWISE = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "sqrt": "Sqrt",
}


class ExportError(ValueError):
    """An equation that is no ONNX operator we know."""


def export(graph: Graph) -> bytes:
    """The graph of one input and one output as a serialised ONNX model. Raises ExportError."""
    model: bytes = _Writer().model(graph).SerializeToString()
    return model


def _onnx() -> ModuleType:
    return import_module("onnx")


@dataclass(slots=True)
class _Writer:
    """An ONNX graph being written: its nodes, its weights, and the name of every value."""

    nodes: list[object] = field(default_factory=list)
    weights: dict[str, object] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def model(self, graph: Graph) -> "ModuleType":
        (given,), (wanted,) = graph.inputs, graph.outputs
        self.names[id(given)] = "x"
        for node in graph.nodes():
            match node:
                case Computed():
                    self.names[id(node)] = self.computed(node)
                case Concatenated():
                    self.names[id(node)] = self.concatenated(node)
                case Input() | Parameter():
                    pass
        self.nodes.append(_onnx().helper.make_node("Identity", [self.names[id(wanted)]], ["y"]))
        return self.assembled(given.shape, wanted.shape)

    def assembled(self, given: Shape, wanted: Shape) -> "ModuleType":
        onnx = _onnx()
        float32 = onnx.TensorProto.FLOAT
        info = onnx.helper.make_tensor_value_info
        sizes = ["b", *(given[axis] for axis in _channels_first(len(given))[1:])]
        inputs = [info("x", float32, sizes)]
        outputs = [info("y", float32, ["b", *wanted[1:]])]
        weights = list(self.weights.values())
        drawn = onnx.helper.make_graph(self.nodes, "network", inputs, outputs, weights)
        opset = onnx.helper.make_opsetid("", OPSET)
        model: ModuleType = onnx.helper.make_model(
            drawn, opset_imports=[opset], ir_version=_IR_VERSION
        )
        return model

    def add(self, operator: str, inputs: Sequence[str], label: str, **attributes: object) -> str:
        """An operator's node; the name of its output."""
        output = f"{label or operator}:{len(self.nodes)}"
        self.nodes.append(_onnx().helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, array: AnyArray) -> str:
        """`array` among the weights, under `name`."""
        if name not in self.weights:
            dense = np.ascontiguousarray(array)
            self.weights[name] = _onnx().numpy_helper.from_array(dense, name)
        return name

    def concatenated(self, node: Concatenated) -> str:
        axis = _channels_first(len(node.shape)).index(node.axis)
        return self.add("Concat", [self.names[id(part)] for part in node.parts], "", axis=axis)

    def computed(self, node: Computed) -> str:
        """The operators of one equation; the name of its value."""
        statement, label = node.statement, node.label
        match statement.equation.expression:
            case Read() as read:
                return self.moved(node, read)
            case Apply("divide", (Reduce("sum", _, Read()) as window, Constant(count))):
                return self.average(node, window, count)
            case Reduce("max", _, Read()) as window:
                pads = _window(node, window)
                return self.add("MaxPool", [self.data(node, window)], label, **pads)
            case _ if contraction := match_contraction(statement):
                return self.contraction(node, contraction)
            case expression:
                normalised = self.normalised(node, expression)
                return normalised or self.elementwise(node, expression)

    def contraction(self, node: Computed, found: Contraction) -> str:
        """A convolution or a linear layer, perhaps with a bias."""
        inputs = [self.names[id(_operand(node, found.data))]]
        kernel = _operand(node, found.weight)
        if not isinstance(kernel, Parameter) or len(kernel.shape) not in (2, 4):
            raise _unknown(node)
        axes = (3, 2, 0, 1) if len(kernel.shape) == 4 else (1, 0)
        inputs.append(self.constant(kernel.name, kernel.array.transpose(axes)))
        match node.statement.equation.expression:
            case Reduce():
                pass
            case Apply("add", (Reduce(), Read() as read)):
                bias = _operand(node, read)
                if not isinstance(bias, Parameter) or len(bias.shape) != 1:
                    raise _unknown(node)
                inputs.append(self.constant(bias.name, bias.array))
            case _:
                raise _unknown(node)
        if len(kernel.shape) == 2:
            return self.add("Gemm", inputs, node.label, transB=1)
        features = _operand(node, found.data).shape[-1]
        groups = features // kernel.shape[2]
        window = _window(node, found.reduction, found.data)
        return self.add("Conv", inputs, node.label, group=groups, **window)

    def average(self, node: Computed, window: Reduce, count: float) -> str:
        """Average pooling, whose divisor is the number of places in a window."""
        source, data = _operand(node, window.body), self.data(node, window)
        extents = dict(node.statement.extents)
        if count != np.prod([extents[index] for index in window.indices]):
            raise _unknown(node)
        if len(node.shape) == 2 or node.shape[1:3] == (1, 1):
            if [extents[index] for index in window.indices] != list(source.shape[1:3]):
                raise _unknown(node)
            pooled = self.add("GlobalAveragePool", [data], node.label)
            flat = len(node.shape) == 2
            return self.add("Flatten", [pooled], node.label, axis=1) if flat else pooled
        pads = _window(node, window)
        pads.pop("dilations")
        return self.add("AveragePool", [data], node.label, count_include_pad=1, **pads)

    def data(self, node: Computed, window: Reduce) -> str:
        return self.names[id(_operand(node, window.body))]

    def normalised(self, node: Computed, expression: Expression) -> str | None:
        """Batch norm, `(x - m) / sqrt(v + e) * g + B`, or None if this is something else."""
        match expression:
            case Apply(
                "add",
                (Apply("multiply", (Apply("divide", (centred, root)), Read() as g)), Read() as b),
            ):
                pass
            case _:
                return None
        match centred, root:
            case (
                Apply("subtract", (Read() as x, Read() as m)),
                Apply("sqrt", (Apply("add", (Read() as v, Constant(epsilon))),)),
            ):
                pass
            case _:
                return None
        known = [_operand(node, read) for read in (g, b, m, v)]
        names = [self.constant(p.name, p.array) for p in known if isinstance(p, Parameter)]
        if len(names) < len(known):
            return None
        inputs = [self.names[id(_operand(node, x))], *names]
        return self.add("BatchNormalization", inputs, node.label, epsilon=epsilon)

    def elementwise(self, node: Computed, expression: Expression) -> str:
        """A tree of functions of the values at one place."""
        match expression:
            case Read(_, access):
                source = _operand(node, expression)
                places = tuple(affine.index for affine in access)
                output = tuple(a.index for a in node.statement.equation.output.access)
                if isinstance(source, Parameter) and places == output[-1:]:
                    shape = (1, -1, *(1 for _ in output[2:]))
                    return self.constant(f"{source.name}:column", source.array.reshape(shape))
                if isinstance(source, Parameter) or places != output:
                    raise _unknown(node)
                return self.names[id(source)]
            case Constant(value):
                return self.constant(f"constant {value}", np.array(value, np.float32))
            case Apply("clip", (inner, Constant(low), Constant(high))):
                limits = [Constant(low), Constant(high)]
                inputs = [self.elementwise(node, part) for part in (inner, *limits)]
                return self.add("Clip", inputs, node.label)
            case Apply(function, arguments) if function in _ELEMENTWISE:
                inputs = [self.elementwise(node, part) for part in arguments]
                return self.add(_ELEMENTWISE[function], inputs, node.label)
            case _:
                raise _unknown(node)

    def moved(self, node: Computed, read: Read) -> str:
        """What only moves values: slices of features, channel shuffles, flattening."""
        source = _operand(node, read)
        data, output = self.names[id(source)], node.statement.equation.output
        extents = dict(node.statement.extents)
        given, made = read.access, output.access
        if len(made) == 2 and len(given) == 4 and _flattens(given, made, source.shape):
            return self.add("Flatten", [data], node.label, axis=1)
        if len(made) != 4 or given[:-1] != made[:-1]:
            raise _unknown(node)
        match given[-1].terms, made[-1].terms:
            case ((i, 1),), ((j, 1),) if i == j and not made[-1].offset:
                first, last = given[-1].offset, given[-1].offset + extents[i]
                bounds = [np.array([value], np.int64) for value in (first, last, 1)]
                names = [self.constant(f"places {value[0]}", value) for value in bounds]
                return self.add("Slice", [data, *names[:2], names[2]], node.label)
            case _ if _shuffles(given[-1], made[-1], extents):
                outer, inner = (extents[index] for index in _by_step(given[-1]))
                return self.shuffled(node, data, outer, inner)
        raise _unknown(node)

    def shuffled(self, node: Computed, data: str, groups: int, size: int) -> str:
        """Feature i of group g at place `groups * i + g`: a transposition of the feature axis."""
        height, width = node.shape[1:3]
        split = np.array([-1, groups, size, height, width], np.int64)
        joined = np.array([-1, groups * size, height, width], np.int64)
        label = node.label
        apart = self.constant(f"shape {split}", split)
        together = self.constant(f"shape {joined}", joined)
        cut = self.add("Reshape", [data, apart], label)
        dealt = self.add("Transpose", [cut], label, perm=[0, 2, 1, 3, 4])
        return self.add("Reshape", [dealt, together], label)


def _channels_first(rank: int) -> list[int]:
    """The axes of `[b, x, y, i]` in the order of `[b, i, x, y]`; shorter shapes stay."""
    return [0, 3, 1, 2] if rank == 4 else list(range(rank))


def _operand(node: Computed, read: Expression) -> Node:
    """The node that `read` reads."""
    if not isinstance(read, Read):
        raise _unknown(node)
    return dict(node.operands)[read.tensor]


def _unknown(node: Computed) -> ExportError:
    equation = to_text(node.statement.equation)
    return ExportError(f"{node.label} is no ONNX operator that is known here: {equation}")


def _window(node: Computed, reduction: Reduce, data: Read | None = None) -> dict[str, object]:
    """Kernel, strides, dilations and pads of a window over rows and columns.

    Pads are the same on both sides wherever that gives the same places, as people write them: that
    also where a pool's last window sticks out ("ceil mode").
    """
    read = data or reduction.body
    source = _operand(node, read)
    assert isinstance(read, Read)
    if len(source.shape) != 4:
        raise _unknown(node)
    extents = dict(node.statement.extents)
    kernel, strides, dilations, pads, spare = [], [], [], [], []
    for axis in (1, 2):
        affine = read.access[axis]
        taps = [index for index, _ in affine.terms if index in reduction.indices]
        places = [index for index, _ in affine.terms if index not in reduction.indices]
        if len(taps) != 1 or len(places) > 1 or affine.divisor != 1:
            raise _unknown(node)
        size, dilation = extents[taps[0]], affine.coefficient(taps[0])
        stride = affine.coefficient(places[0]) if places else 1
        count = extents[places[0]] if places else 1
        kernel.append(size)
        strides.append(stride)
        dilations.append(dilation)
        pads.append(-affine.offset)
        reach = (count - 1) * stride + dilation * (size - 1) + 1
        spare.append(source.shape[axis] + 2 * pads[-1] - reach)
    window: dict[str, object] = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
    }
    sides = list(zip(pads, spare, strides, strict=True))
    if data is None and min(spare) < 0 and all(-stride < rest <= 0 for _, rest, stride in sides):
        return window | {"pads": [*pads, *pads], "ceil_mode": 1}
    after = [pad if 0 <= rest < stride else pad - rest for pad, rest, stride in sides]
    return window | {"pads": [*pads, *after]}


def _flattens(given: Sequence[Affine], made: Sequence[Affine], shape: Shape) -> bool:
    """Whether `[b, x, y, i]` is laid out feature by feature, `[b, i*x*y]`."""
    batch, row, column, feature = (affine.index for affine in given)
    steps = {feature: shape[1] * shape[2], row: shape[2], column: 1}
    return made[0].index == batch and dict(made[1].terms) == steps and not made[1].offset


def _by_step(affine: Affine) -> list[str]:
    """The indices of an access, the one that moves farthest first."""
    return [index for index, _ in sorted(affine.terms, key=lambda term: -term[1])]


def _shuffles(given: Affine, made: Affine, extents: dict[str, int]) -> bool:
    """Whether two indices that run as one from given run the other way round in made."""
    if len(given.terms) != 2 or len(made.terms) != 2:
        return False
    outer, inner = _by_step(given)
    return (
        dict(given.terms) == {outer: extents[inner], inner: 1}
        and dict(made.terms) == {inner: extents[outer], outer: 1}
        and not (given.offset or made.offset)
    )
