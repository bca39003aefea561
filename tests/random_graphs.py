"""Small networks drawn at random, and what they mean: every node interpreted in float64."""

from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray

import striate as st
from striate.compiler import compile_graph
from striate.compiler.target import Target
from striate.layers import add, batch_norm, concatenate, take_features
from striate.network.graph import (
    Array,
    Computed,
    Concatenated,
    Derived,
    Graph,
    Input,
    Known,
    Node,
    Parameter,
)
from striate.notation import interpret
from striate.runtime import Executable


def evaluate(graph: Graph, *arrays: Array) -> list[NDArray[np.float64]]:
    """The outputs, node by node as they are drawn: nothing folded, nothing fused."""
    values: dict[int, NDArray[np.float64]] = {
        id(node): array.astype(np.float64) for node, array in zip(graph.inputs, arrays, strict=True)
    }
    for node in graph.nodes():
        match node:
            case Parameter() | Derived():
                values[id(node)] = known(node)
            case Concatenated(parts, axis, _):
                values[id(node)] = np.concatenate([values[id(part)] for part in parts], axis)
            case Computed(statement, operands, _):
                given = {name: values[id(operand)] for name, operand in operands}
                values[id(node)] = interpret(statement, given)
            case Input():
                pass
    return [values[id(node)] for node in graph.outputs]


def known(node: Known) -> NDArray[np.float64]:
    """What a parameter holds, or what is derived from parameters."""
    if isinstance(node, Parameter):
        return node.array.astype(np.float64)
    return interpret(node.statement, {name: known(operand) for name, operand in node.operands})


def inputs_for(graph: Graph, seed: int = 0) -> list[Array]:
    """Random arrays in [-1, 1] for the inputs."""
    generator = np.random.default_rng(seed)
    return [generator.uniform(-1, 1, node.shape).astype(np.float32) for node in graph.inputs]


def executable(
    graph: Graph, threads: int = 1, algorithm: str = "direct", target: str | None = None
) -> Executable:
    """The graph compiled, its arena full of NaNs: what is read before it is written shows."""
    named = Target.named(target) if target else None
    made = Executable(compile_graph(graph, named, algorithm=algorithm), threads)
    poison(made)
    return made


def poison(made: Executable) -> None:
    made.arena[...] = 0xFF


def check(graph: Graph, algorithm: str = "direct", target: str | None = None) -> Executable:
    """The compiled graph computes what its nodes say, twice; gives it back."""
    arrays = inputs_for(graph)
    made = executable(graph, algorithm=algorithm, target=target)
    expected = evaluate(graph, *arrays)
    for _ in range(2):
        close(made(*arrays), expected, 2e-5 if algorithm == "direct" else 1e-4)
    return made


def close(got: tuple[Array, ...], expected: list[NDArray[np.float64]], within: float) -> None:
    """Each output agrees within a part of its largest value."""
    assert len(got) == len(expected)
    for value, wanted in zip(got, expected, strict=True):
        assert value.shape == wanted.shape
        largest = float(np.max(np.abs(wanted), initial=1e-3))
        np.testing.assert_allclose(value, wanted, rtol=0, atol=within * largest)


def steps(made: Executable) -> list[str]:
    """The schedule of every step of the program, in order."""
    program = made.program
    return [program.kernels[step.kernel].schedule for phase in program.phases for step in phase]


class Weights:
    """Random parameters, the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)

    def array(self, *shape: int, low: float = -1, high: float = 1) -> Array:
        return self.generator.uniform(low, high, shape).astype(np.float32)

    def convolve(
        self,
        x: Node,
        features: int,
        kernel: int = 3,
        groups: int = 1,
        bias: bool = False,
        **window: int,
    ) -> Node:
        """A convolution whose outputs are about as large as its inputs."""
        inputs = x.shape[-1] // groups
        weight = self.array(kernel, kernel, inputs, features) / (kernel * inputs**0.5)
        added = self.array(features) if bias else None
        return st.conv2d(x, weight, added, groups=groups, **window)

    def normalise(self, x: Node) -> Node:
        n = x.shape[-1]
        scale, shift = self.array(n, low=0.5, high=1.5), self.array(n)
        return batch_norm(x, self.array(n), self.array(n, low=0.5, high=2), scale, shift)


def random_graph(seed: int, batch: int, size: int = 12) -> Graph:
    """About `size` nodes on images of `batch`; the same but for the batch for the same seed."""
    random, weights = Random(seed), Weights(seed)
    rows, columns = random.randint(4, 8), random.randint(4, 8)
    images = Input("images", (batch, rows, columns, random.choice([3, 4, 16])))
    filters = Input("filters", (3, 3, 4, 5))
    nodes: list[Node] = [images]
    makers: list[Callable[[Random, Weights, list[Node], Input], Node]] = [
        *[_convolution] * 3,
        *[_pointwise] * 2,
        *[_residual] * 3,
        _add,
        _concatenation,
        _concatenation,
        _pool,
        _move,
    ]
    for _ in range(size):
        nodes.append(random.choice(makers)(random, weights, nodes, filters))
    asked = [images, nodes[-1], *random.choices(nodes, k=6)]
    outputs = [nodes[-1], *random.choices(asked, k=random.randint(0, 2))]
    return Graph((images, filters), tuple(outputs))


def _recent(random: Random, nodes: list[Node]) -> Node:
    """A node, rather one of the last: networks are deep."""
    return (
        nodes[-random.randint(1, min(3, len(nodes)))]
        if random.random() < 0.8
        else random.choice(nodes)
    )


def _convolution(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    if x.shape[-1] == 4 and random.random() < 0.5:
        return st.conv2d(x, filters, padding=1)
    kernel = random.choice([1, 3, 3])
    padding = random.choice([kernel // 2, kernel // 2, kernel // 2, 1])
    if min(x.shape[1:3]) + 2 * padding < kernel:
        padding = 1
    groups = random.choice([1, 1, 1, 2, x.shape[-1]])
    if x.shape[-1] % groups:
        groups = 1
    features = groups * random.choice([1, 2]) if groups > 1 else random.choice([1, 3, 4, 8, 17, 32])
    y = weights.convolve(
        x,
        features,
        kernel,
        groups,
        bias=random.random() < 0.5,
        padding=padding,
        stride=random.choice([1, 1, 2]),
    )
    if random.random() < 0.5:
        y = weights.normalise(y)
    return random.choice([st.relu, st.relu6, lambda node: node])(y)


def _pointwise(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    return random.choice([st.relu, st.relu6, st.sigmoid, weights.normalise])(x)


def _add(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    alike = [node for node in nodes if node.shape == x.shape]
    return add(x, random.choice(alike))


def _residual(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    """Convolutions that keep the size, and what went in or any of its shape; two in a row."""
    x = _recent(random, nodes)
    for _ in range(2):
        features, kernel = x.shape[-1], random.choice([1, 1, 3])
        y = st.relu(weights.convolve(x, random.choice([8, features]), 1))
        if random.random() < 0.3:
            nodes.append(y)
        y = weights.convolve(y, features, kernel, padding=kernel // 2)
        x = random.choice([st.relu, st.sigmoid, lambda node: node])(add(y, x))
        if random.random() < 0.5:
            nodes.append(x)
    return x


def _concatenation(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    axis = random.choice([-1, -1, -1, 1])
    fixed = [k for k in range(4) if k != axis % 4]
    alike = [n for n in nodes if [n.shape[k] for k in fixed] == [x.shape[k] for k in fixed]]
    parts = [x, *[random.choice(alike) for _ in range(random.randint(1, 2))]]
    random.shuffle(parts)
    return concatenate(parts, axis)


def _pool(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    pool = random.choice([st.max_pool2d, st.avg_pool2d])
    return pool(x, random.choice([2, 3]), stride=random.choice([1, 2]), padding=1)


def _move(random: Random, weights: Weights, nodes: list[Node], filters: Input) -> Node:
    x = _recent(random, nodes)
    features = x.shape[-1]
    if features % 2 == 0 and random.random() < 0.5:
        return st.channel_shuffle(x, 2)
    start = random.randrange(features)
    return take_features(x, start, random.randint(start + 1, features))
