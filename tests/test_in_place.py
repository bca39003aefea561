"""Outputs over an operand that is read for the last time: where they may be, and rightly."""

from types import ModuleType

import numpy as np
import pytest
from kernel_harness import RUNNABLE, statement
from kernel_harness import check as check_kernel
from random_graphs import Weights, check, executable, inputs_for, random_graph

import striate as st
from striate.compiler.batches import chained, divided
from striate.compiler.compile import compile_graph
from striate.compiler.plan import Plan, make_plan
from striate.compiler.schedules import direct, grouped, im2col, staged, window, winograd
from striate.compiler.target import Target
from striate.layers import add, concatenate
from striate.network.graph import Graph, Input, Node
from striate.runtime import Executable
from striate.transforms.fuse import fuse

TARGET = Target.host()
SEEDS = range(24)


def images(features: int = 8, batch: int = 1) -> Input:
    return Input("images", (batch, 6, 7, features))


def plan_of(*outputs: Node, watched: bool = False) -> Plan:
    given = {id(n): n for n in Graph((), outputs).nodes() if isinstance(n, Input)}
    graph = fuse(Graph(tuple(given.values()), outputs))
    return make_plan(graph, TARGET, "direct", watched)


def overwritten(plan: Plan) -> int:
    """How many operands have their reader's output in their place."""
    places = plan.pointers
    return sum(
        places[id(operand)] == places[id(work.node)]
        for work in plan.work
        for _, operand in work.node.operands
    )


CONVOLUTION = "sum[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])"
DEPTHWISE = "sum[u,v](D[u,v,c] * x[b,p+u-1,q+v-1,c])"
SHAPES = {"W": (3, 3, 5, 19), "D": (3, 3, 19), "P": (19, 19), "A": (3, 3, 19)}


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("columns", [7, 11, 13, 17, 23, 29, 31])
@pytest.mark.parametrize(
    ("schedule", "text", "features"),
    [
        (direct, f"y[b,p,q,j] = relu({CONVOLUTION} + R[b,p,q,j])", 5),
        (winograd, f"y[b,p,q,j] = relu({CONVOLUTION} + R[b,p,q,j])", 5),
        (im2col, "y[b,p,q,j] = sum[u,v](A[u,v,j] * x[b,p+u-1,q+v-1,0]) + R[b,p,q,j]", 1),
        (grouped, f"y[b,p,q,c] = {DEPTHWISE} + R[b,p,q,c]", 19),
        (staged, f"y[b,p,q,j] = sum[c](P[c,j] * relu({DEPTHWISE})) + R[b,p,q,j]", 19),
        (window, "y[b,p,q,c] = max[u,v](x[b,p+u-1,q+v-1,c]) + R[b,p,q,c]", 19),
        (window, "y[b,p,q,c] = sum[u,v](x[b,p+u-1,q+v-1,c]) * R[b,p,q,c]", 19),
    ],
    ids=["direct", "winograd", "im2col", "grouped", "staged", "max", "sum"],
)
def test_every_output_is_written_once(
    schedule: ModuleType, text: str, features: int, columns: int, target: str
) -> None:
    """Tiles that meet at a border take nothing from each other: R is where y is written."""
    size = (2, 3, columns)
    sizes = {"u": 3, "v": 3} if schedule is window else {}
    shapes = {**SHAPES, "x": (*size, features), "R": (*size, 19)}
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    if schedule is not im2col:
        sizes |= {"p": 3, "q": columns}
    rounding = 10.0 if schedule is winograd else 1.0
    check_kernel(schedule, statement(text, used, **sizes), target, rounding=rounding)


def test_a_residual_sum_is_where_its_residual_was() -> None:
    """Block after block, in the memory of the first."""
    w, x = Weights(), images()
    y: Node = w.convolve(x, 32, 1)
    for _ in range(3):
        y = st.relu(add(w.convolve(st.relu(w.convolve(y, 8, 1)), 32, 1), y))
    last = w.convolve(y, 5, 1)
    plan = plan_of(last)
    assert overwritten(plan) == 3
    wide, narrow = 4 * 6 * 7 * 32, 4 * 6 * 7 * 8
    assert plan.arena_bytes <= wide + narrow + 512
    check(plan.graph)


def test_an_element_wise_layer_is_in_place() -> None:
    w, x = Weights(), images()
    y = w.convolve(x, 32, 1)
    z = st.relu(y)
    plan = make_plan(Graph((x,), (w.convolve(z, 3, 1),)), TARGET, "direct")
    assert overwritten(plan) == 1


def blocks(x: Node) -> dict[str, tuple[Node, ...]]:
    """Sums that may not be where their residual is, and why."""
    w = Weights()
    y = w.convolve(x, 16, 1)
    inner = st.relu(w.convolve(y, 8, 1))
    summed = add(w.convolve(inner, 16, 1), y)
    end = w.convolve(summed, 3, 1)
    again = add(w.convolve(y, 16, 1), y)
    later = add(end, w.convolve(y, 3, 1))
    deep = w.convolve(w.convolve(inner, 8, 1), 8, 1)
    side = st.max_pool2d(y, 3, 1, 1)
    return {
        "read for a product, too": (w.convolve(again, 3, 1),),
        "read later": (w.convolve(add(w.convolve(end, 16, 1), y), 3, 1), end),
        "read beside": (w.convolve(add(w.convolve(st.relu(side), 16, 1), y), 3, 1), later),
        "an input": (w.convolve(add(w.convolve(st.relu(y), 8, 1), x), 3, 1),),
        "an output": (add(w.convolve(inner, 16, 1), y),),
        "a part": (w.convolve(concatenate([y, add(w.convolve(deep, 16, 1), y)]), 3, 1),),
        "another margin": (w.convolve(add(w.convolve(inner, 16, 1), y), 3, 3, padding=1),),
    }


@pytest.mark.parametrize("why", list(blocks(images())))
def test_a_sum_is_beside_what_is_still_needed(why: str) -> None:
    plan = plan_of(*blocks(images())[why])
    kept = overwritten(plan)
    # Of the sum that is read later, the last one may lie there.
    assert kept == (1 if why == "read later" else 0)
    check(plan.graph)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_have_the_bits_of_separate_memory(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = random_graph(seed, batch=3)
    arrays = inputs_for(graph)
    algorithm = "auto" if seed % 2 else "direct"
    made = executable(graph, 2, algorithm)
    monkeypatch.setattr("striate.compiler.plan.in_place", lambda graph, placed, *_: placed)
    apart = executable(graph, algorithm=algorithm)
    for _ in range(2):
        for got, wanted in zip(made(*arrays), apart(*arrays), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_random_graphs_overwrite() -> None:
    counts = [overwritten(plan_of(*random_graph(seed, 1).outputs)) for seed in SEEDS]
    assert sum(count > 0 for count in counts) > 8
    assert max(counts) > 3


@pytest.mark.parametrize("batch", [3, 6])
def test_a_batch_in_parts(batch: int) -> None:
    """Every part takes the memory of the one before."""
    w, x = Weights(), images(batch=batch)
    y: Node = w.convolve(x, 32, 1)
    for kernel in (1, 3, 1):
        y = st.relu(
            add(w.convolve(st.relu(w.convolve(y, 8, 1)), 32, kernel, padding=kernel // 2), y)
        )
    graph = Graph((x,), (w.convolve(y, 3, 1),))
    part = divided(graph, 3)
    assert part is not None
    assert overwritten(plan_of(*part.outputs)) == 3
    made = Executable(chained([(compile_graph(part, algorithm="direct"), 3)]), 2)
    made.arena[...] = 0xFF
    arrays = inputs_for(graph)
    for _ in range(2):
        np.testing.assert_array_equal(made(*arrays)[0], executable(graph)(*arrays)[0])


def test_a_watched_sum_and_its_residual_are_both_seen() -> None:
    w, x = Weights(), images(batch=2)
    y: Node = w.convolve(x, 16, 1)
    z = add(w.convolve(w.convolve(y, 8, 1), 16, 1), y)
    wanted = (y, z, st.relu(w.convolve(z, 3, 1)))
    assert overwritten(plan_of(*wanted, watched=True)) == 1
    arrays = inputs_for(Graph((x,), wanted))
    expected = executable(Graph((x,), wanted))(*arrays)
    made = Executable(compile_graph(Graph((x,), wanted), algorithm="direct", watched=True), 2)
    seen: dict[int, np.ndarray] = {}
    made.watch(arrays, lambda number, array: seen.update({number: array.copy()}))
    for number, array in enumerate(expected):
        np.testing.assert_array_equal(seen[number], array)
