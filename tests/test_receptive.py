"""Receptive fields are where the gradient is not zero, for every network and on the way there.

The support of the gradient is found without intervals: the gradients that the notation derives are
walked back through the network and evaluated on positive numbers, with one feature and along one
axis of the image, for every cell of a layer at once.
"""

from dataclasses import replace

import golden_numbers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import striate as st
from striate.layers.tracing import draw_graph
from striate.models import create
from striate.network.gradient import gradient
from striate.network.graph import Computed, Concatenated, Graph, Input, Parameter
from striate.network.receptive import receptive_fields
from striate.notation import interpret, resolve
from striate.notation.ir import Affine, Apply, Read, Reduce, reads

NAMES = list(golden_numbers.manifest())


class Thin:
    """A graph with one feature, along one `axis` of the image, for a batch of cells."""

    def __init__(self, graph, axis, batch):
        self.axis, self.batch = axis, batch
        self.nodes, self.sums = {}, {}
        for node in graph.nodes():
            self.nodes[node] = self.thin(node)

    def shape(self, shape, kept):
        return tuple([size if k in kept else 1 for k, size in enumerate(shape)])

    def thin(self, node):
        match node:
            case Input(name, shape):
                return Input(name, (self.batch, *self.shape(shape, {self.axis})[1:]))
            case Parameter(name, array):
                return Parameter(name, array)
            case Concatenated(parts, axis, label):
                assert axis == len(node.shape) - 1
                # Features one on another: each part goes to the one feature there is.
                return self.sum(tuple([self.nodes[part] for part in parts]), label)
            case Computed():
                return self.statement(node)

    def sum(self, parts, label):
        """The parts added up; growing concatenations share what they begin with."""
        if len(parts) == 1:
            return parts[0]
        if parts not in self.sums:
            left, right = self.sum(parts[:-1], label), parts[-1]
            names = ",".join(f"i{k}" for k in range(len(left.shape)))
            equation = st.notation.parse(f"y[{names}] = x[{names}] + z[{names}]")
            statement = resolve(equation, {"x": left.shape, "z": right.shape})
            self.sums[parts] = Computed(statement, (("x", left), ("z", right)), label)
        return self.sums[parts]

    def statement(self, node):
        """The same equation, whose indices have one value but along the axis and the batch."""
        equation, extents = node.statement.equation, dict(node.statement.extents)
        along = self.along(node)
        sizes = {index: size if index in along else 1 for index, size in extents.items()}
        for read in reads(equation.expression):
            operand = dict(node.operands)[read.tensor]
            if len(operand.shape) == 2 and not isinstance(operand, Parameter):
                sizes[read.access[-1].index] = self.nodes[operand].shape[-1]
        sizes["b"] = self.batch
        named = dict(node.operands)
        shapes, operands = {}, []
        for name, _ in node.statement.shapes:
            operand = named[name]
            if isinstance(operand, Parameter):
                read = next(r for r in reads(equation.expression) if r.tensor == name)
                kept = {
                    k for k, value in enumerate(read.access) if {i for i, _ in value.terms} & along
                }
                ends = [
                    sizes[value.index] if k in kept else 1 for k, value in enumerate(read.access)
                ]
                array = operand.array[tuple(map(slice, ends))]
                # What the network is to learn is 1; tables such as those of adaptive pooling are
                # theirs, along the one axis.
                table = len(kept) == 2
                array = array.astype(bool).astype(np.float64) if table else np.ones(array.shape)
                operands.append((name, Parameter(operand.name, array)))
                shapes[name] = array.shape
            else:
                operands.append((name, self.nodes[operand]))
                shapes[name] = self.nodes[operand].shape
        output = self.centred(equation.output, along)
        # Flattened: all other indices have one value.
        packed = [
            value if value.index else Affine(tuple((i, 1) for i, _ in value.terms))
            for value in output.access
        ]
        output = replace(output, access=tuple(packed))
        expression = self.rewritten(equation.expression, along)
        thin = replace(equation, output=output, expression=expression, sizes=())
        return Computed(resolve(thin, shapes, sizes=sizes), tuple(operands), node.label)

    def along(self, node):
        """The indices with which the axis is read, and those of the output tied to them."""
        found = set()
        for read in reads(node.statement.equation.expression):
            operand = dict(node.operands)[read.tensor]
            if isinstance(operand, Parameter):
                continue
            if len(operand.shape) == 4:
                found |= {index for index, _ in read.access[self.axis].terms}
            elif self.nodes[operand].shape[-1] > 1:  # flattened
                found.add(read.access[-1].index)
        if len(node.shape) == 4:
            found |= {i for i, _ in node.statement.equation.output.access[self.axis].terms}
        return found

    def centred(self, read, along):
        """Offsets along other axes move what has only one place."""
        access = [
            v if {i for i, _ in v.terms} & along else replace(v, offset=0) for v in read.access
        ]
        return replace(read, access=tuple(access))

    def rewritten(self, expression, along):
        match expression:
            case Read():
                return self.centred(expression, along)
            case Apply(function, arguments):
                return Apply(function, tuple(self.rewritten(a, along) for a in arguments))
            case Reduce(kind, indices, body):
                # The largest of equals could be any of them.
                kind = "sum" if kind == "max" else kind
                return Reduce(kind, indices, self.rewritten(body, along))
            case _:
                return expression


def support(graph, node, axis):
    """Whether cell c of `node` depends on pixel x of its image, along `axis`: bool[c, x]."""
    cells = node.shape[axis] if len(node.shape) == 4 else 1
    thin = Thin(Graph(graph.inputs, (node,)), axis, cells)
    one = np.eye(cells).reshape(thin.nodes[node].shape)
    cotangent = Parameter("cotangent", one)
    image = thin.nodes[graph.inputs[0]]
    result = gradient(thin.nodes[node], image, cotangent)
    forward = {*Graph((), (thin.nodes[node],)).nodes()}
    values = {}
    for part in Graph((), (result,)).nodes():
        if isinstance(part, Parameter):
            values[part] = part.array
        elif part in forward:
            values[part] = np.ones(part.shape)
        else:
            arrays = {name: values[operand] for name, operand in part.operands}
            values[part] = (interpret(part.statement, arrays) > 0).astype(np.float64)
    return values[result].reshape(cells, -1) > 0


def check(graph, nodes, axes=(1, 2)):
    fields = receptive_fields(graph)
    for node in nodes:
        for axis in axes:
            field = fields[node][axis - 1]
            seen = support(graph, node, axis)
            assert field.cells == len(seen)
            for cell, row in enumerate(seen):
                (pixels,) = np.nonzero(row)
                found = field.pixels(cell)
                expected = range(pixels[0], pixels[-1] + 1) if len(pixels) else range(0)
                assert found == expected, (node.label, axis, cell)


def chosen(graph):
    """Layers from the first to the last: convolutions, pools, joins, the end."""
    nodes = [node for node in graph.nodes() if isinstance(node, Computed | Concatenated)]
    spatial = [node for node in nodes if len(node.shape) == 4]
    return [*(spatial[len(spatial) * k // 4] for k in range(4)), spatial[-1], nodes[-1]]


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_the_support_of_the_gradient(name):
    module = create(name)
    size = golden_numbers.manifest()[name]["input"]
    graph = module.trace((1, *size, 3), abstract=True)
    check(graph, chosen(graph), axes=(1,))
    odd = golden_numbers.manifest()[name]["odd_input"]
    graph = module.trace((1, *odd, 3), abstract=True)
    check(graph, chosen(graph)[2:], axes=(2,))


def convolved(features, kernel, stride=1, padding=0, dilation=1):
    weight = np.ones((*kernel, features.shape[-1], features.shape[-1]), np.float32)
    return st.conv2d(features, weight, stride=stride, padding=padding, dilation=dilation)


def transposed(features, kernel, stride):
    """A transposed convolution, whose accesses leave remainders."""
    rows, columns = features.shape[1:3]
    text = "y[b,p,q,i] = sum[u,v](k[u,v] * x[b, (p+a-u)/s, (q+a-v)/s, i])"
    equation = st.equation(text, a=kernel // 2, s=stride)
    sizes = {"p": rows * stride, "q": columns * stride, "u": kernel, "v": kernel}
    return equation(k=np.ones((kernel, kernel), np.float32), x=features, sizes=sizes)


STEPS = {
    "transposed": transposed,
    "conv": lambda x, k, s: convolved(x, (k, k + 1), s, k // 2),
    "dilated": lambda x, k, s: convolved(x, (k, 2), s, k, dilation=2),
    "max": lambda x, k, s: st.max_pool2d(x, k, s, k // 2, ceil_mode=True),
    "average": lambda x, k, s: st.avg_pool2d(x, k, s, k // 2, ceil_mode=True),
    "adaptive": lambda x, k, s: st.adaptive_avg_pool2d(x, (k + 2, s + 3)),
    "nearest": lambda x, k, s: st.interpolate(x, (k + 7, 2 * s + 5)),
    "bilinear": lambda x, k, s: st.interpolate(x, (2 * k + 3, s + 6), mode="bilinear"),
    "corners": lambda x, k, s: st.interpolate(
        x, (k + 7, s + 9), mode="bilinear", align_corners=True
    ),
    "branches": lambda x, k, s: st.concatenate(
        [convolved(x, (1, 1), s), convolved(x, (2 * k - 1, 3), s, (k - 1, 1))]
    ),
    "shortcut": lambda x, k, s: st.layers.add(x, convolved(x, (3, 3), 1, 1)),
}


@settings(max_examples=60, deadline=None)
@given(
    some.lists(
        some.tuples(some.sampled_from(sorted(STEPS)), some.integers(1, 4), some.integers(1, 3)),
        min_size=1,
        max_size=5,
    ),
    some.integers(9, 40),
    some.integers(9, 40),
)
def test_fields_of_any_stack_of_layers(steps, rows, columns):
    def forward(x):
        for name, kernel, stride in steps:
            try:
                x = STEPS[name](x, kernel, stride)
            except ValueError:  # the image has become too small
                break
        return x

    graph = draw_graph(forward, (1, rows, columns, 2), {})
    check(graph, [node for node in graph.outputs if isinstance(node, Computed | Concatenated)])


def middle(name, label):
    module = create(name)
    graph = module.trace((1, 224, 224, 3), abstract=True)
    (node,) = [node for node in graph.nodes() if getattr(node, "label", None) == label]
    return receptive_fields(graph)[node][0]


@pytest.mark.parametrize(
    ("name", "label", "size", "stride", "padding"),
    [
        # As Araujo, Norris and Sim (2019) have them, whose padding is what lies before pixel 0.
        ("alexnet", "features.12", 195, 32, 66),
        ("vgg16", "features.30", 212, 32, 90),
        ("mobilenet_v2", "features.18.2", 491, 32, 245),
        ("densenet121", "relu", 2071, 32, 1021),
        ("resnet18", "layer4.1.relu_1", 435, 32, 217),
    ],
)
def test_known_fields(name, label, size, stride, padding):
    field = middle(name, label)
    assert (field.size, field.stride, -field.offset) == (size, stride, padding)


def test_a_field_says_its_pixels_and_its_middle():
    graph = draw_graph(lambda x: convolved(x, (3, 3), 2, 1), (1, 8, 9, 1), {})
    rows, columns = receptive_fields(graph)[graph.outputs[0]]
    assert (rows.cells, columns.cells) == (4, 5)
    assert [rows.pixels(cell) for cell in range(4)] == [
        range(0, 2),
        range(1, 4),
        range(3, 6),
        range(5, 8),
    ]
    assert columns.pixels(4) == range(7, 9)
    assert [columns.centre(cell) for cell in (0, 4)] == [0, 8]
    with pytest.raises(ValueError, match="cell 5 of 5; expected 0 to 4"):
        columns.pixels(5)


def test_what_no_formula_says_is_said_for_each_cell():
    """Adaptive pooling has windows of several sizes, branches may have several strides."""
    graph = draw_graph(lambda x: st.adaptive_avg_pool2d(x, (3, 7)), (1, 7, 7, 1), {})
    rows, columns = receptive_fields(graph)[graph.outputs[0]]
    assert (rows.size, rows.stride, rows.offset) == (3, None, None)
    assert [rows.pixels(cell) for cell in range(3)] == [range(0, 3), range(2, 5), range(4, 7)]
    assert (columns.size, columns.stride, columns.offset) == (1, 1, 0)
    graph = draw_graph(
        lambda x: st.concatenate([x, st.interpolate(convolved(x, (2, 2), 2), (8, 8))]),
        (1, 8, 8, 1),
        {},
    )
    rows, _ = receptive_fields(graph)[graph.outputs[0]]
    # The window holds what any cell sees: an even one this and the next pixel, an odd one the last.
    assert (rows.size, rows.stride, rows.offset) == (3, 1, -1)
    assert [rows.pixels(cell) for cell in (0, 1, 6)] == [range(0, 2), range(0, 2), range(6, 8)]


def test_a_global_mean_has_one_cell_and_parameters_have_none():
    graph = draw_graph(st.global_avg_pool2d, (2, 5, 6, 3), {})
    (node,) = graph.outputs
    rows, columns = receptive_fields(graph)[node]
    assert (rows.cells, rows.size, rows.stride, rows.pixels(0)) == (1, 5, 0, range(0, 5))
    assert columns.pixels(0) == range(0, 6)
    assert not any(isinstance(one, Parameter) for one in receptive_fields(graph))
