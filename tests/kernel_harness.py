"""Run one schedule on one statement in this process, with guard zones around every buffer."""

import ctypes
import math
from collections.abc import Mapping
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from striate.compiler.balance import Balance
from striate.compiler.codegen import object_code
from striate.compiler.layout import Halo, Layout
from striate.compiler.schedules.base import Ahead, Emission, Task
from striate.compiler.target import Target
from striate.notation import interpret, parse, resolve
from striate.notation.ir import Statement, reads
from striate.runtime.loader import ObjectCode, load

Array = NDArray[np.float32]

RUNNABLE = [n for n in ("avx512", "avx2", "generic") if Target.named(n).runs_here()]

_ZONE = 1024
# Bytes that make a NaN: an element read from outside and used shows up in the result.
_GUARD = 0xFF


def statement(text: str, shapes: Mapping[str, tuple[int, ...]], **sizes: int) -> Statement:
    """The equation `text` on operands of these shapes."""
    return resolve(parse(text), shapes, sizes=sizes or None)


def sliced(shape: tuple[int, ...], before: int, after: int) -> Layout:
    """`shape` as a slice of the last axis of a tensor with `before` + `after` features more.

    The slice itself starts at the buffer's first byte; what lies between its rows is guarded.
    """
    wide = (*shape[:-1], shape[-1] + before + after)
    return Layout(shape, Layout.dense(wide).strides)


class Buffer:
    """Memory for one tensor: a guard zone, the tensor's bytes, a guard zone."""

    def __init__(self, layout: Layout, values: Array | None) -> None:
        size = layout.nbytes
        self.memory = np.full(size + 2 * _ZONE, _GUARD, np.uint8)
        self.layout = layout
        inside = self.memory[_ZONE : _ZONE + size]
        if any(layout.halo):
            inside[:] = 0
        start = _ZONE + layout.origin
        self.view: Array = np.ndarray(
            layout.shape, np.float32, self.memory.data, start, layout.strides
        )
        if values is not None:
            self.view[...] = values
        self.before = self.memory.copy()

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data) + _ZONE

    def touched_outside(self) -> bool:
        """Whether a byte that is not the tensor's has changed."""
        after, before = self.memory.copy(), self.before.copy()
        for memory in (after, before):
            start = _ZONE + self.layout.origin
            view: Array = np.ndarray(
                self.layout.shape, np.float32, memory.data, start, self.layout.strides
            )
            view[...] = 0
        return not np.array_equal(after, before)


class Loaded:
    """A kernel in this process, which can be called as long as the object lives.

    How far it went through what later steps read it keeps where this object can see it.
    """

    def __init__(self, emission: Emission, target: Target) -> None:
        self._later = ctypes.c_int64()
        kept = f"inttoptr i64 {ctypes.addressof(self._later)} to ptr"
        ir = code(emission)
        assert "%later.at = alloca ptr" in ir
        ir = ir.replace("%later.at = alloca ptr", f"%later.at = {kept}")
        (self._function,) = load([ObjectCode("kernel", object_code(ir, target))])
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        kind = ctypes.CFUNCTYPE(None, pointer, number, pointer, number, number, number)
        self._call = kind(self._function.address)

    def call(self, pointers: int, chunk: int, scratch: int | None, following: int) -> int:
        """Do a chunk; gives the rounds in which it asked for something."""
        start, pace = 1 << 20, 40
        self._call(pointers, chunk, scratch, following, start, pace)
        return (self._later.value - start) // pace


def emit(
    schedule: ModuleType,
    stated: Statement,
    target: Target,
    layouts: Mapping[str, Layout] | None = None,
) -> tuple[Task, Emission]:
    """The task with dense layouts but for `layouts` and the halos that the schedule asks for."""
    output = stated.equation.output.tensor
    halos: dict[str, Halo] = schedule.halo(stated)
    placed: list[tuple[str, Layout]] = []
    for name, shape in (*stated.shapes, (output, stated.shape)):
        layout = (layouts or {}).get(name)
        if layout is None:
            layout = Layout.padded(shape, halos[name]) if name in halos else Layout.dense(shape)
        placed.append((name, layout))
    task = Task(stated, tuple(placed), target)
    return task, schedule.emit(task)


def code(emission: Emission) -> str:
    """The LLVM IR of a kernel."""
    return emission.write().function("kernel")


def run(
    schedule: ModuleType,
    stated: Statement,
    operands: Mapping[str, Array],
    target: Target | str = "generic",
    layouts: Mapping[str, Layout] | None = None,
    over: str | None = None,
) -> Array:
    """The kernel's output; AssertionError if it wrote anywhere but to its output.

    The output is written over the operand `over`, in whose memory it lies.
    """
    if isinstance(target, str):
        target = Target.named(target)
    task, emission = emit(schedule, stated, target, layouts)
    loaded = Loaded(emission, target)
    buffers = []
    for name, layout in task.layouts[:-1]:
        values = operands[name]
        if name in emission.packing:
            packing = emission.packing[name]
            values = interpret(packing, {name: values})
            if name in emission.transforms:
                rows, columns = (np.array(m, np.float64) for m in emission.transforms[name])
                values = np.einsum("au,kuv...,bv->kab...", rows, values, columns)
            if name in emission.balances:
                values = balanced(values, emission.balances[name], target.lanes)
            layout = Layout.dense(values.shape)
        buffers.append(Buffer(layout, values))
        if name in emission.ahead:
            buffers[-1] = _made(emission.ahead[name], buffers[-1])
    result = Buffer(task.layouts[-1][1], np.full(stated.shape, 12345.678, np.float32))
    if over is not None:
        result = buffers[[name for name, _ in task.layouts].index(over)]
    buffers.append(result)
    pointers = (ctypes.c_void_p * len(buffers))(*[buffer.address for buffer in buffers])
    scratch = np.full(emission.scratch_bytes + 64 + _ZONE, _GUARD, np.uint8)
    start = -int(scratch.ctypes.data) % 64
    aligned = int(scratch.ctypes.data) + start
    place, rounds = ctypes.addressof(pointers), 0
    for chunk in reversed(range(emission.chunks)):
        rounds += loaded.call(place, chunk, aligned, max(chunk - 1, 0))
    promised = emission.chunks * emission.room.rounds
    assert promised <= rounds, "there is less room than the schedule says"
    assert promised or rounds < emission.chunks, "there is room that the schedule does not know"
    beyond = scratch[start + emission.scratch_bytes :]
    assert (beyond == _GUARD).all(), "memory behind the scratch memory was written"
    for buffer, (name, _) in zip(buffers, task.layouts, strict=True):
        kept = np.array_equal(buffer.memory, buffer.before)
        if buffer is result:
            kept = not buffer.touched_outside()
        assert kept, f"memory of {name} was written outside the output"
    return result.view.copy()


def _made(ahead: Ahead, operand: Buffer) -> Buffer:
    """What a kernel makes of an operand before another runs."""
    made = Buffer(Layout.dense((ahead.nbytes // 4,)), None)
    loaded = Loaded(ahead.emission, ahead.task.target)
    pointers = (ctypes.c_void_p * 2)(operand.address, made.address)
    for chunk in range(ahead.emission.chunks):
        loaded.call(ctypes.addressof(pointers), chunk, None, chunk)
    assert np.array_equal(operand.memory, operand.before), "an operand was written"
    assert not made.touched_outside(), "memory beside what was made was written"
    made.before = made.memory.copy()
    return made


def balanced(packed: Array, balance: Balance, lanes: int) -> Array:
    """The packed weights of panels, each feature scaled, and the corrections that follow them."""
    panels = packed.reshape(balance.panels, balance.runs, balance.terms, balance.width)
    panels = panels.astype(np.float32)
    largest = np.abs(panels).max((1, 2))
    exponents = np.frexp(largest)[1] - 1
    panels = np.ldexp(panels, -exponents[:, None, None])
    corrections = np.zeros((balance.panels, balance.width), np.float32)
    for start in range(0, balance.terms, lanes):
        for n, first in enumerate(range(start, min(start + lanes, balance.terms) - 2, 3)):
            if first + 3 <= start + lanes:
                pair = (panels[:, :, first] * panels[:, :, first + 1]).sum(1)
                corrections += pair if n % 2 else -pair
    inverse = np.where(largest > 0, np.ldexp(np.float32(1), exponents), 0)
    rows = np.stack([corrections, inverse], 1)
    return np.concatenate([panels.ravel(), rows.ravel()]).astype(np.float32)


def operands_for(stated: Statement, seed: int = 0) -> dict[str, Array]:
    """Random operands in [-1, 1]."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in stated.shapes
    }


def check(
    schedule: ModuleType,
    stated: Statement,
    target: Target | str = "generic",
    layouts: Mapping[str, Layout] | None = None,
    operands: Mapping[str, Array] | None = None,
    rounding: float = 1.0,
) -> None:
    """The kernel agrees with the interpreter, within rounding that grows with the reduction.

    Where an output needs only the element in its own place of an operand, it may be written there.

    `rounding` is what an algorithm that adds in another order may lose more than a plain sum.
    """
    given = operands if operands is not None else operands_for(stated)
    expected = interpret(stated, given)
    got = run(schedule, stated, given, target, layouts)
    written = {i for affine in stated.equation.output.access for i, _ in affine.terms}
    length = math.prod(n for i, n in stated.extents if i not in written)
    scale = max([1.0, *[float(np.max(np.abs(x))) for x in given.values() if np.isfinite(x).all()]])
    factors = scale ** min(4, len(reads(stated.equation.expression)))
    atol = 1e-6 * rounding * factors * max(1.0, length**0.5)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=atol)
    output = stated.equation.output
    for name, shape in stated.shapes:
        accesses = {r.access for r in reads(stated.equation.expression) if r.tensor == name}
        if shape == stated.shape and accesses == {output.access}:
            place = (layouts or {}).get(output.tensor, Layout.dense(shape))
            alike = {**(layouts or {}), name: place, output.tensor: place}
            again = run(schedule, stated, given, target, alike, over=name)
            np.testing.assert_array_equal(again, got, f"written over {name}")
