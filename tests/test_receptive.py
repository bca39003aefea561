"""Receptive fields are where the gradient is not zero, for every network and on the way there.

The support of the gradient is found without intervals: the gradients that the notation derives are
walked back through the network and evaluated on positive numbers, with one feature and along one
axis of the image, for every cell of a layer at once.
"""

from dataclasses import replace

import golden_numbers
import numpy as np
import pytest

import striate as st
from striate.layers import adaptive_avg_pool2d, concatenate, conv2d, interpolate, max_pool2d
from striate.layers.tracing import draw_graph
from striate.models import create
from striate.network.gradient import gradient
from striate.network.graph import Computed, Concatenated, Graph, Input, Parameter
from striate.network.receptive import receptive_fields
from striate.notation import interpret, resolve
from striate.notation.ir import Affine, Apply, Read, Reduce

NAMES = list(golden_numbers.manifest())


class Thin:
    """A graph with one feature, along one `axis` of the image, for a batch of cells."""

    def __init__(self, graph, axis, batch):
        self.axis, self.batch = axis, batch
        self.nodes = {}
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
                return self.sum([self.nodes[part] for part in parts], label)
            case Computed():
                return self.statement(node)

    def sum(self, parts, label):
        total = parts[0]
        for part in parts[1:]:
            names = ",".join(f"i{k}" for k in range(len(part.shape)))
            equation = st.notation.parse(f"y[{names}] = x[{names}] + z[{names}]")
            statement = resolve(equation, {"x": total.shape, "z": part.shape})
            total = Computed(statement, (("x", total), ("z", part)), label)
        return total

    def statement(self, node):
        """The same equation, whose indices have one value but along the axis and the batch."""
        equation, extents = node.statement.equation, dict(node.statement.extents)
        along = self.along(node)
        sizes = {index: size if index in along else 1 for index, size in extents.items()}
        for read in all_reads(equation.expression):
            operand = dict(node.operands)[read.tensor]
            if len(operand.shape) == 2 and not isinstance(operand, Parameter):
                sizes[read.access[-1].index] = self.nodes[operand].shape[-1]
        sizes["b"] = self.batch
        named = dict(node.operands)
        shapes, operands = {}, []
        for name, _ in node.statement.shapes:
            operand = named[name]
            if isinstance(operand, Parameter):
                reads = [r for r in all_reads(equation.expression) if r.tensor == name]
                kept = {
                    k
                    for k, value in enumerate(reads[0].access)
                    if {i for i, _ in value.terms} & along
                }
                ends = [
                    sizes[value.index] if k in kept else 1
                    for k, value in enumerate(reads[0].access)
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
        for read in all_reads(node.statement.equation.expression):
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


def all_reads(expression):
    return st.notation.ir.reads(expression)


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
    check(graph, chosen(graph)[2:], axes=(1, 2))
