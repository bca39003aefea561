"""`execute` compiles a structure once and keeps a bounded number of executables."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runtime_kernels import chain, ramp

import striate.compiler.compile
from striate.compiler.cache import CodeCache
from striate.compiler.program import Program
from striate.layers import Conv2d, ReLU, Sequential
from striate.layers.tracing import KEPT
from striate.network.graph import Computed, Concatenated, Graph, Input, Parameter
from striate.notation.ir import Affine, Apply, Constant, Equation, Read, Statement
from striate.runtime.executable import Executable
from striate.runtime.execute import Kept, clear, execute, structure


def add_one(node: Input | Computed, number: float = 1.0) -> Computed:
    access = (Affine((("a", 1),)), Affine((("b", 1),)))
    body = Apply("add", (Read("x", access), Constant(number)))
    rows, columns = node.shape
    statement = Statement(
        Equation(Read("y", access), body),
        (("x", node.shape),),
        (("a", rows), ("b", columns)),
        node.shape,
    )
    return Computed(statement, (("x", node),), "add")


def graph(chunks: int, label: str = "x", number: float = 1.0) -> Graph:
    given = Input(label, (chunks, 16))
    return Graph((given,), (add_one(given, number),))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    """The graphs given to a compiler that knows one program."""
    seen: list[Graph] = []

    def program_of(given: Graph) -> Program:
        seen.append(given)
        return chain(1, given.inputs[0].shape[0])

    monkeypatch.setattr(striate.compiler, "program_of", program_of, raising=False)
    clear()
    yield seen
    clear()


def test_an_equal_structure_is_compiled_once(compiled: list[Graph]) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(execute(graph(4), [ramp(4)])[0], ramp(4) + 1)
    assert len(compiled) == 1
    execute(graph(5), [ramp(5)])
    execute(graph(4), [ramp(4)], threads=1)
    execute(graph(4), [ramp(4)])
    assert len(compiled) <= 3


def test_graphs_with_parameters_are_not_kept(compiled: list[Graph]) -> None:
    given = Input("x", (4, 16))
    held = Parameter("w", ramp(4))
    both = Graph((given,), (add_one(given), held))
    assert structure(both) is None
    for _ in range(2):
        execute(both, [ramp(4)])
    assert len(compiled) == 2


def test_the_structure_tells_wiring_apart() -> None:
    a, b = Input("a", (4, 16)), Input("b", (4, 16))
    one, other = add_one(a), add_one(b)
    distinct = [
        Graph((a, b), (one,)),
        Graph((a, b), (other,)),
        Graph((a, b), (one, other)),
        Graph((a, b), (other, one)),
        Graph((a, b), (add_one(a, 2.0),)),
        Graph((a, b), (add_one(one),)),
        Graph((a, b), (Concatenated((one, other), 1, ""),)),
        Graph((a, b), (Concatenated((other, one), 1, ""),)),
        Graph((a, b), (Concatenated((one, other), 0, ""),)),
        Graph((a, b), (Concatenated((one, one), 0, ""),)),
        Graph((b, a), (one,)),
        Graph((a,), (one,)),
    ]
    assert len({structure(each) for each in distinct}) == len(distinct)
    assert structure(graph(4)) == structure(graph(4))
    assert structure(graph(4)) != structure(graph(3))


def test_an_input_must_be_among_the_inputs() -> None:
    with pytest.raises(ValueError, match="the graph reads x, which is not one of its inputs"):
        structure(Graph((), graph(4).outputs))


def test_what_is_kept_is_bounded_by_number_and_bytes() -> None:
    small = Executable(chain(2, 2), 1)
    kept = Kept(most=3, most_bytes=10 * small.arena_bytes)
    for key in "abc":
        kept.put(key, small)
    assert kept.get("a") is small
    kept.put("d", small)
    assert kept.get("b") is None
    assert kept.get("a") is small
    assert len(kept) == 3
    large = Executable(chain(2, 40), 1)
    kept.put("e", large)
    assert kept.get("e") is large
    assert len(kept) == 1
    kept.put("e", small)
    kept.put("f", small)
    assert len(kept) == 2
    kept.clear()
    assert len(kept) == 0


def resident_bytes() -> int:
    """The memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_two_hundred_shapes_leave_little_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory, executables and code stay bounded when every call has another shape."""
    code = CodeCache(tmp_path, limit_bytes=50_000)
    monkeypatch.setattr(striate.compiler.compile, "code_cache", lambda: code)
    network = Sequential(Conv2d(2, 5, 3, stride=2), ReLU())
    random = np.random.default_rng(0)
    drawn = [random.integers((1, 3, 3), (5, 40, 40)) for _ in range(220)]
    shapes = sorted({tuple(int(size) for size in sizes) for sizes in drawn})[:200]
    held = []
    for number, shape in enumerate(shapes):
        images = random.standard_normal((*shape, 2), np.float32)
        found = network(images)
        if number % 50 == 0:
            expected = network(images, algorithm="direct", threads=1)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        held.append(resident_bytes())
    assert len(held) == 200
    assert held[-1] - held[49] < 32e6
    assert code.size_bytes() <= code.limit_bytes
    assert len(network.__dict__["_executables"]._kept) <= KEPT
