"""Constants: packed by machine code as the interpreter would, for every kind of copy and target."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import balanced
from random_graphs import known

from striate.compiler.balance import Balance
from striate.compiler.codegen import object_code
from striate.compiler.pack import copy, product
from striate.compiler.preparation import Preparer
from striate.compiler.program import Kernel
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target
from striate.compiler.toom_cook import algorithm
from striate.network.graph import Array, Derived, Known, Parameter
from striate.notation import interpret
from striate.notation.ir import Affine, Apply, Equation, Expression, Read, Statement
from striate.runtime.executable import prepared

TARGETS = [name for name in ("avx512", "avx2", "generic") if Target.named(name).runs_here()]


SHAPES = [(), (1,), (7,), (16,), (1000,), (3, 5), (2, 3, 4, 5), (40, 33), (2,) * 11, (3, 2) * 4]


def array(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def statement(
    output: str, sizes: dict[str, int], source: Expression, shapes: dict[str, tuple[int, ...]]
) -> Statement:
    extents = tuple((index, sizes[index]) for index in output)
    access = tuple(Affine(((index, 1),)) for index in output)
    shape = tuple(sizes[index] for index in output)
    equation = Equation(Read("packed", access), source, extents)
    return Statement(equation, tuple(shapes.items()), extents, shape)


def plain(indices: str) -> tuple[Affine, ...]:
    return tuple(Affine(((index, 1),)) for index in indices)


def scaled(weight: Known, scale: Known) -> Derived:
    """weight[..., j] * scale[j]."""
    indices = "klmnop"[: len(weight.shape)]
    sizes = dict(zip(indices, weight.shape, strict=True))
    body = Apply("multiply", (Read("W", plain(indices)), Read("s", plain(indices[-1]))))
    made = statement(indices, sizes, body, {"W": weight.shape, "s": scale.shape})
    return Derived("scaled", made, (("W", weight), ("s", scale)))


def permuted(node: Known, order: tuple[int, ...]) -> Derived:
    indices = "klmnop"[: len(node.shape)]
    sizes = dict(zip(indices, node.shape, strict=True))
    output = "".join(indices[axis] for axis in order)
    made = statement(output, sizes, Read("x", plain(indices)), {"x": node.shape})
    return Derived("permuted", made, (("x", node),))


def in_panels(node: Known, width: int) -> Statement:
    """packed[panel, u, v, i, lane] = W[u, v, i, width * panel + lane]."""
    *_, features = node.shape
    u, v, i = node.shape[:3]
    sizes = {"u": u, "v": v, "i": i, "P": -(-features // width), "L": width}
    last = Affine((("P", width), ("L", 1)))
    return statement("PuviL", sizes, Read("W", (*plain("uvi"), last)), {"W": node.shape})


def block_of(preparer: Preparer, target: str, threads: int) -> Array:
    """All constants."""

    def kernel(key: object, emission: Emission, schedule: str, equation: str) -> Kernel:
        symbol = f"pack_{abs(hash((key, target)))}"
        code = object_code(emission.write().function(symbol), Target.named(target))
        return Kernel(symbol, schedule, equation, "", None, code, 0)

    return prepared(preparer.preparation(Target.named(target), kernel), threads)


def prepare(target: str, threads: int, *wishes: tuple[Known, Statement | None]) -> list[Array]:
    """The constants as they lie in the block."""
    arrays = [node.array for wish, _ in wishes for node in parameters(wish)]
    preparer = Preparer(tuple({id(each): each for each in arrays}.values()))
    places = [preparer.constant(node, packing) for node, packing in wishes]

    block = block_of(preparer, target, threads)
    found = []
    for place, (node, packing) in zip(places, wishes, strict=True):
        shape = packing.shape if packing else node.shape
        start = place.offset // 4
        found.append(block[start : start + int(np.prod(shape))].reshape(shape))
    return found


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_weights_are_balanced(target: str, data: st.DataObject) -> None:
    lanes = Target.named(target).lanes
    taps, channels = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 3, 16, 37, 64]))
    features, vectors = data.draw(st.sampled_from([1, 5, 16, 70])), data.draw(st.integers(1, 3))
    raw = array(1, taps, channels, features)
    raw *= np.geomspace(1e-20, 1e20, features, dtype=np.float32)
    raw[..., -1] = 0
    weight, packing = Parameter("W", raw), in_panels(Parameter("W", raw), vectors * lanes)
    balance = Balance(packing.shape[0], taps, channels, vectors * lanes)
    preparer = Preparer((weight.array,))
    place = preparer.constant(weight, packing, balance=balance).offset // 4
    beside = preparer.constant(weight, packing).offset // 4
    block = block_of(preparer, target, 2)
    wanted = balanced(expected(weight, packing), balance, lanes)
    # What is far below the largest of its feature is as near to zero.
    np.testing.assert_allclose(block[place : place + wanted.size], wanted, rtol=1e-5, atol=1e-6)
    plain = expected(weight, packing).ravel()
    np.testing.assert_array_equal(block[beside : beside + plain.size], plain)


def parameters(node: Known) -> list[Parameter]:
    if isinstance(node, Parameter):
        return [node]
    return [each for _, operand in node.operands for each in parameters(operand)]


def expected(node: Known, packing: Statement | None) -> Array:
    values = known(node)
    if packing is None:
        return values.astype(np.float32)
    ((name, _),) = packing.shapes
    return interpret(packing, {name: values}).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_weights_in_any_order_are_packed_into_panels(target: str, data: st.DataObject) -> None:
    u, v = data.draw(st.sampled_from([(1, 1), (3, 3), (1, 7)]))
    channels = data.draw(st.sampled_from([1, 3, 16, 37, 64]))
    features = data.draw(st.sampled_from([1, 5, 16, 24, 70]))
    width = data.draw(st.sampled_from([4, 16, 32, 48]))
    # As torch keeps them, as the house does, or any other way round.
    order = data.draw(st.permutations(range(4)))
    raw = array(*[(u, v, channels, features)[axis] for axis in order])
    weight: Known = Parameter("W", raw.transpose(np.argsort(order)))
    if data.draw(st.booleans()):
        weight = scaled(weight, Parameter("s", array(features, seed=1)))
    if data.draw(st.booleans()):
        axes = tuple(data.draw(st.permutations(range(4))))
        weight = permuted(permuted(weight, axes), tuple(int(k) for k in np.argsort(axes)))
    packing = in_panels(weight, width)
    (got,) = prepare(target, data.draw(st.sampled_from([1, 2])), (weight, packing))
    np.testing.assert_allclose(got, expected(weight, packing), rtol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_that_are_not_packed_come_as_they_are(target: str, shape: tuple[int, ...]) -> None:
    node = Parameter("b", array(*shape))
    across = Parameter("c", array(*shape[::-1]).T)
    first, second = prepare(target, 2, (node, None), (across, None))
    np.testing.assert_array_equal(first, node.array)
    np.testing.assert_array_equal(second, across.array)


@pytest.mark.parametrize("target", TARGETS)
def test_a_large_matrix_is_turned(target: str) -> None:
    weight = Parameter("W", array(200, 300).T[None, None])
    packing = in_panels(weight, 32)
    (got,) = prepare(target, 2, (weight, packing))
    np.testing.assert_array_equal(got, expected(weight, packing))


def test_what_is_more_than_a_copy_is_computed_before() -> None:
    total = Apply("add", (Read("W", plain("ij")), Read("W", plain("ij"))))
    weight = Parameter("W", array(5, 20))
    packing = statement("ij", {"i": 5, "j": 20}, total, {"W": (5, 20)})
    assert product(packing, weight) == ()
    (got,) = prepare("generic", 1, (weight, packing))
    np.testing.assert_allclose(got, 2 * weight.array)


def test_reads_below_the_array_are_left_to_the_interpreter() -> None:
    shifted = Affine((("j", 1),), -2)
    weight = Parameter("W", array(20))
    packing = statement("j", {"j": 20}, Read("W", (shifted,)), {"W": (20,)})
    factors = product(packing, weight)
    assert copy(packing, factors, [(4,)], None) is None
    (got,) = prepare("generic", 1, (weight, packing))
    np.testing.assert_array_equal(got, expected(weight, packing))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (7, 2), (11, 4)])
def test_transformed_weights(target: str, m: int, taps: int, stride: int) -> None:
    reach = -(-taps // stride)
    matrix = algorithm(m, reach).weights
    raw = array(20, 7, taps, taps)
    weight = Parameter("W", raw.transpose(2, 3, 1, 0))
    scale = Parameter("s", array(20, seed=1))
    node = scaled(weight, scale)
    # The last panel is partial, and so are the taps of some phases.
    sizes = {"P": 2, "u": reach, "v": reach, "r": stride, "c": stride, "i": 7, "L": 16}
    rows, columns = (Affine(((tap, stride), (phase, 1))) for tap, phase in ("ur", "vc"))
    last = Affine((("P", 16), ("L", 1)))
    source = Read("W", (rows, columns, *plain("i"), last))
    packing = statement("PuvrciL", sizes, source, {"W": node.shape})
    preparer = Preparer((weight.array, scale.array))
    place = preparer.constant(node, packing, (matrix, matrix))

    def kernel(key: object, emission: Emission, schedule: str, equation: str) -> Kernel:
        code = object_code(emission.write().function("packed"), Target.named(target))
        return Kernel("packed", schedule, equation, "", None, code, 0)

    block = prepared(preparer.preparation(Target.named(target), kernel), 2)
    numbers = np.array(matrix, float)
    wanted = np.einsum("au,Puv...,bv->Pab...", numbers, expected(node, packing), numbers)
    got = block[place.offset // 4 :][: wanted.size].reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_shared_arrays_are_packed_once() -> None:
    one = array(3, 3, 8, 16)
    preparer = Preparer((one,))
    first, second = Parameter("a", one), Parameter("b", one)
    packing = in_panels(first, 16)
    assert preparer.constant(first, packing) == preparer.constant(second, packing)
    assert preparer.constant(first, replace(packing, shapes=(("V", first.shape),))) is not None
