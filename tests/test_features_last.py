"""Contractions in any order of axes become channels-last ones where that pays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from random_graphs import Weights, check, close, evaluate, inputs_for, steps

import striate as st
from striate.layers import add
from striate.layers.apply import _graph
from striate.network.graph import Computed, Derived, Graph, Input, Node, Parameter
from striate.notation import parse, resolve, to_text
from striate.notation.ir import Statement
from striate.transforms.features_last import features_last
from striate.transforms.fold import fold
from striate.transforms.fuse import fuse


def computed(graph: Graph) -> list[Computed]:
    return [node for node in graph.nodes() if isinstance(node, Computed)]


def transformed(graph: Graph) -> list[str]:
    """The equations after the pass, which keeps the graph's meaning."""
    after = features_last(graph)
    arrays = inputs_for(graph)
    close(tuple(evaluate(after, *arrays)), evaluate(graph, *arrays), 1e-6)
    return texts(after)


def texts(graph: Graph) -> list[str]:
    return [to_text(node.statement.equation).replace(" ", "") for node in computed(graph)]


def alone(text: str, shapes: dict[str, tuple[int, ...]], **sizes: int) -> Graph:
    return _graph(resolve(parse(text), shapes, sizes=sizes or None))


NCHW = "y[b,j,p,q] = sum[u,v,i](W[j,i,u,v] * x[b,i,p+u-1,q+v-1])"
IMAGE = {"x": (2, 6, 7, 9), "W": (20, 6, 3, 3)}


def test_convolution() -> None:
    assert transformed(alone(NCHW, IMAGE)) == [
        "y[n0,n2,n3,n1]=x[n0,n1,n2,n3]",
        "t[b,p,q,j]=sum[u,v,i](W[j,i,u,v]*x[b,p+u-1,q+v-1,i])",
        "y[b,j,p,q]=t[b,p,q,j]",
    ]
    assert steps(check(alone(NCHW, IMAGE)))[-2:] == ["direct", "generic"]


def test_known_weights_are_put_in_order_before_the_run() -> None:
    x, weight = Input("x", (1, 64, 16, 16)), Parameter("W", Weights().array(64, 64, 3, 3))
    graph = Graph((x,), (st.equation(NCHW)(x=x, W=weight),))
    assert "W[u,v,i,j]" in transformed(graph)[1]
    (after,) = [n for n in features_last(graph).nodes() if isinstance(n, Derived)]
    assert after.operands == (("x", weight),)
    assert "winograd" in steps(check(graph, "auto"))


def test_rest_of_the_expression_is_in_the_copy() -> None:
    text = f"{NCHW.replace('sum', 'relu(sum', 1)} + B[j] + R[b,j,p,q])"
    graph = alone(text, {**IMAGE, "B": (20,), "R": (2, 20, 7, 9)})
    assert transformed(graph)[-1] == "y[b,j,p,q]=relu(t[b,p,q,j]+B[j]+R[b,j,p,q])"
    check(graph)


def test_data_that_is_read_again() -> None:
    text = "y[b,j,p,q] = sum[u,v,i](W[j,i,u,v] * t[b,i,p+u-1,q+v-1]) + t[b,j,p,q]"
    check(alone(text, {"t": (2, 20, 7, 9), "W": (20, 20, 3, 3)}))
    transformed(alone(text, {"t": (2, 20, 7, 9), "W": (20, 20, 3, 3)}))


def test_groups() -> None:
    graph = alone(
        "y[b,8*g+j,p,q] = sum[u,v,i](W[8*g+j,i,u,v] * x[b,8*g+i,p+u-1,q+v-1]) + B[8*g+j]",
        {"x": (2, 24, 7, 9), "W": (24, 8, 3, 3), "B": (24,)},
        g=3,
        j=8,
    )
    assert len(transformed(graph)) == 3
    assert not {"direct", "grouped"}.isdisjoint(steps(check(graph)))


def test_weights_alone_in_another_order_move_nothing() -> None:
    shapes = {"x": (3, 100), "W": (50, 100)}
    assert len(transformed(alone("y[b,j] = relu(sum[i](W[j,i] * x[b,i]))", shapes))) == 1
    made = check(alone("y[b,j] = relu(sum[i](W[j,i] * x[b,i]))", shapes))
    assert steps(made) == ["generic", "direct"]


def test_products_of_matrices() -> None:
    for text in (
        "y[i,j] = sum[k](a[i,k] * b[k,j])",
        "y[i,j] = sum[k](a[i,k] * b[j,k])",
        "y[i,j] = sum[k](a[k,i] * b[k,j])",
        "y[i,j] = sum[k](a[k,i] * b[j,k])",
        "y[j,i] = sum[k](b[k,j] * a[i,k])",
    ):
        letters = text.partition("= ")[2]
        sizes = {"i": 13, "j": 35, "k": 22}
        shapes = {
            n: tuple(sizes[c] for c in letters[letters.index(f"{n}[") + 2 :][:3:2]) for n in "ab"
        }
        graph = alone(text, shapes)
        assert len(transformed(graph)) == 1
        assert "direct" in steps(check(graph))


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        # Too few products for the copies, or no features at all.
        ("y[b,j,p,q] = sum[u,v](W[j,u,v] * x[b,p+u-1,q+v-1])", {"x": (2, 7, 9), "W": (1, 2, 2)}),
        (
            "y[b,g,p,q] = sum[u,v](W[g,u,v] * x[b,g,p+u-1,q+v-1])",
            {"x": (2, 8, 7, 9), "W": (8, 3, 3)},
        ),
        ("y[b,p,q,i] = sum[u](R[p,u] * x[b,u,q,i])", {"x": (2, 8, 7, 9), "R": (4, 8)}),
        ("y[b,i,j] = sum[k](x[b,i,k] * z[b,k,j])", {"x": (2, 8, 7), "z": (2, 7, 9)}),
        ("y[b,i] = sum[k](x[b,i,k] * x[b,i,k])", {"x": (2, 8, 7)}),
        ("y[b,j,p] = sum[i](W[j+i] * x[b,i,p])", {"x": (2, 8, 7), "W": (97,)}),
        ("y[b,j,p] = max[i](W[j,i] * x[b,i,p])", {"x": (2, 8, 7), "W": (90, 8)}),
    ],
)
def test_left_alone(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    graph = alone(text, shapes)
    assert features_last(graph) is graph


def test_channels_last_networks_are_left_alone() -> None:
    w, x = Weights(), Input("x", (2, 6, 7, 8))
    y = st.relu(w.normalise(w.convolve(x, 16, padding=1)))
    y = add(w.convolve(y, 16, groups=4, padding=1), w.convolve(y, 16, groups=16, padding=1))
    y = st.linear(st.flatten(y), w.array(6 * 7 * 16, 9))
    graph = fold(Graph((x,), (y,)))
    fused = fuse(graph)
    assert features_last(graph) is graph
    assert features_last(fused) is fused


def test_copies_between_layers_vanish() -> None:
    """A network in the other order is copied where it begins and where it ends."""
    w, x = Weights(), Input("x", (2, 8, 7, 9))
    y: Node = x
    for _ in range(3):
        kernel = w.array(8, 8, 3, 3) / 9
        y = st.relu(st.conv2d(y, kernel, w.array(8), padding=1, layout="NCHW"))
    graph = Graph((x,), (y,))
    # Each layer is one kernel between the two copies.
    assert len([step for step in steps(check(graph)) if step != "border"]) == 5


def test_data_is_moved_once_for_all_readers() -> None:
    w, x = Weights(), Input("x", (2, 8, 7, 9))
    ends = [st.conv2d(x, w.array(12, 8, k, k), padding=k // 2, layout="NCHW") for k in (1, 3, 5)]
    graph = Graph((x,), tuple(ends))
    assert len([text for text in transformed(graph) if "=x[n0" in text]) == 1
    check(graph)


@hs.composite
def statements(draw: hs.DrawFn) -> Statement:
    """Convolutions with the axes of every tensor in any order."""

    def shuffled(axes: dict[str, int]) -> tuple[str, tuple[int, ...]]:
        order = draw(hs.permutations(list(axes)))
        return ",".join(order), tuple(axes[axis] for axis in order)

    rank = draw(hs.integers(0, 2))
    rows, taps = "pq"[:rank], "uv"[:rank]
    size = {row: draw(hs.integers(3, 7)) for row in rows}
    b, i, j = draw(hs.integers(1, 2)), draw(hs.integers(1, 9)), draw(hs.integers(1, 40))
    data = {"b": b, "i": i, **{f"{r}+{t}-1": size[r] for r, t in zip(rows, taps, strict=True)}}
    x, x_shape = shuffled(data)
    w, w_shape = shuffled({"i": i, "j": j, **dict.fromkeys(taps, 3)})
    y, y_shape = shuffled({"b": b, "j": j, **size})
    total = f"sum[{','.join([*taps, 'i'])}](W[{w}] * x[{x}])"
    text = draw(
        hs.sampled_from(["{}", "relu({} + B[j])", "{} * R[{y}]", "{} + sigmoid({} - B[j])"])
    )
    shapes = {"x": x_shape, "W": w_shape, "B": (j,), "R": y_shape}
    text = f"y[{y}] = {text.format(total, total, y=y)}"
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    return resolve(parse(text), used)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(statements(), hs.booleans())
def test_any_order(statement: Statement, known: bool) -> None:
    shapes = dict(statement.shapes)
    inputs = [Input(name, shape) for name, shape in shapes.items() if not known or name != "W"]
    nodes: dict[str, Node] = {node.name: node for node in inputs}
    if known:
        nodes["W"] = Parameter("W", Weights().array(*shapes["W"]))
    node = Computed(statement, tuple((name, nodes[name]) for name in shapes), "")
    graph = Graph(tuple(inputs), (node,))
    transformed(graph)
    check(graph)


def test_arrays_in_the_other_order() -> None:
    w = Weights()
    x, weight, bias = w.array(2, 8, 7, 9), w.array(20, 8, 3, 3), w.array(20)
    first = st.conv2d(x, weight, bias, stride=2, padding=1, layout="NCHW")
    last = st.conv2d(
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)),
        np.ascontiguousarray(weight.transpose(2, 3, 1, 0)),
        bias,
        stride=2,
        padding=1,
    )
    np.testing.assert_allclose(first, last.transpose(0, 3, 1, 2), atol=1e-4)
