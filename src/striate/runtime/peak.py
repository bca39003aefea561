"""What this CPU can do at most, measured: multiply-adds and bytes of memory per second.

Both are small loops of machine code with nothing in them but the work: independent chains of fused
multiply-adds in registers; vector loads over a buffer much larger than the last-level cache. The
threads of a measurement meet at a gate inside the machine code, so that waking them is not timed.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from striate.compiler.codegen import object_code
from striate.compiler.target import Target
from striate.runtime.loader import ObjectCode, load

_LINE = 64  # bytes of a cache line on every CPU we know
_UNROLL = 8  # vectors or lines per turn of the loops
_STREAMS = (1, 2, 4)  # places read at once: each may have a hardware prefetcher of its own
_AHEAD = (0, 512, 2048)  # bytes that the software prefetch runs ahead of the loads; 0 is none
_FALLBACK_CACHE = 64 << 20

_Kernel = Callable[..., None]


def fma_peak(threads: int = 1, seconds: float = 0.1) -> float:
    """GFLOP/s of `threads` threads that only multiply and add (a fused multiply-add counts as two).

    The best of repeated measurements of about 10 ms each, during at least `seconds`; under 0.3 s
    with compilation. ValueError if `threads` is less than 1.
    """
    _check(threads)
    kernel = _kernel("fma", _fma_ir())
    lanes = Target.host().lanes
    operands = np.repeat(np.array([1.0, 0.5], np.float32), lanes)
    flops_per_turn = 2 * _accumulators() * lanes

    def run(turns: int) -> float:
        sink = np.zeros((threads, 64), np.float32)
        calls = [(turns, operands.ctypes.data, sink[t].ctypes.data) for t in range(threads)]
        return _together(kernel, calls)

    turns = 10_000
    while (elapsed := run(turns)) < 0.005:
        turns *= 4
    turns = max(1, int(turns * 0.01 / elapsed))
    return threads * flops_per_turn * turns / _best(lambda: run(turns), seconds) / 1e9


def memory_bandwidth(threads: int = 1) -> Callable[[], float]:
    """What measures how many bytes per second `threads` threads read from memory, at every call.

    It reads a buffer of four times the last-level cache (128 MB to 1 GB) once, in some
    milliseconds, by the fastest of several loops: they differ in how many places they read at once
    and how far ahead they prefetch, and are tried here, three times each.
    ValueError if `threads` is less than 1.
    """
    _check(threads)
    size = min(max(4 * _last_level_cache(), 128 << 20), 1 << 30)
    step = _LINE * _UNROLL
    buffer = np.ones(size // 4, np.float32)
    start = -(-buffer.ctypes.data // _LINE) * _LINE

    def reader(streams: int, ahead: int) -> Callable[[], float]:
        kernel = _kernel(f"read{streams}_{ahead}", _read_ir(streams, ahead))
        part = (size - _LINE) // (threads * streams * step) * step
        sink = np.zeros((threads, 64), np.float32)
        first = [start + t * streams * part for t in range(threads)]
        calls = [(part // step, first[t], part, sink[t].ctypes.data) for t in range(threads)]

        def read() -> float:
            _ = buffer, sink  # their memory lives as long as this
            return threads * streams * part / _together(kernel, calls)

        return read

    readers = [reader(streams, ahead) for streams in _STREAMS for ahead in _AHEAD]
    return max(readers, key=lambda read: max(read() for _ in range(3)))


def _best(measure: Callable[[], float], seconds: float) -> float:
    """The least of the times that `measure` returns, called for `seconds` and at least 3 times."""
    times = [measure()]
    while len(times) < 3 or sum(times) < seconds:
        times.append(measure())
    return min(times)


def _together(kernel: _Kernel, calls: Sequence[tuple[int, ...]]) -> float:
    """Seconds that the calls, a thread each, take from the last arrival at the gate to the end."""
    gate = np.zeros(16, np.int32)
    arrivals, ends = [0.0] * len(calls), [0.0] * len(calls)

    def work(thread: int) -> None:
        arrivals[thread] = time.perf_counter()
        kernel(gate.ctypes.data, len(calls), *calls[thread])
        ends[thread] = time.perf_counter()

    others = [threading.Thread(target=work, args=(t,)) for t in range(1, len(calls))]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    return max(ends) - max(arrivals)


def _check(threads: int) -> None:
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")


def _last_level_cache() -> int:
    """Bytes of the largest cache of the first CPU; a guess where the system does not tell."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdigit() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=_FALLBACK_CACHE)


def _accumulators() -> int:
    """Chains that fill every multiplier's pipeline and leave registers for the two operands."""
    return Target.host().registers - 4


# The gate: every thread counts itself in and spins until all `threads` have.
_GATE = """
  %before = atomicrmw add ptr %gate, i32 1 seq_cst
  br label %wait
wait:
  %here = load atomic i32, ptr %gate acquire, align 4
  %all = icmp uge i32 %here, %threads
  br i1 %all, label %start, label %wait
start:
  br label %loop
"""


def _fma_ir() -> str:
    """`fma(gate, threads, turns, operands, sink)`: every chain is x = x * half + one."""
    target = Target.host()
    vector, chains = target.vector, range(_accumulators())
    lines = [
        f"declare {vector} @llvm.fma.v{target.lanes}f32({vector}, {vector}, {vector})",
        "define void @fma(ptr %gate, i32 %threads, i64 %turns, ptr %operands, ptr %sink) {",
        f"  %one = load {vector}, ptr %operands, align 4",
        f"  %second = getelementptr float, ptr %operands, i64 {target.lanes}",
        f"  %half = load {vector}, ptr %second, align 4",
        _GATE + "loop:",
        "  %turn = phi i64 [0, %start], [%next, %loop]",
        *[f"  %x{k} = phi {vector} [%one, %start], [%y{k}, %loop]" for k in chains],
    ]
    for k in chains:
        if target.fma:
            arguments = f"{vector} %x{k}, {vector} %half, {vector} %one"
            lines.append(f"  %y{k} = call {vector} @llvm.fma.v{target.lanes}f32({arguments})")
        else:
            lines.append(f"  %p{k} = fmul {vector} %x{k}, %half")
            lines.append(f"  %y{k} = fadd {vector} %p{k}, %one")
    lines += [
        "  %next = add i64 %turn, 1",
        "  %more = icmp ult i64 %next, %turns",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *_folded("fadd", vector, [f"%y{k}" for k in chains]),
        "  ret void\n}",
    ]
    return "\n".join(lines)


def _read_ir(streams: int, ahead: int) -> str:
    """`read(gate, threads, turns, data, part, sink)`: `streams` parts of `part` bytes, in step.

    A turn reads `_UNROLL` cache lines of each part.
    """
    lanes = Target.host().lanes
    vector = f"<{lanes} x i32>"
    places = [(s, b) for s in range(streams) for b in range(0, _LINE * _UNROLL, 4 * lanes)]
    sums = range(min(4, len(places)))
    lines = [
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"define void @read{streams}_{ahead}(ptr %gate, i32 %threads, i64 %turns, ptr %data, "
        "i64 %part, ptr %sink) {",
        _GATE + "loop:",
        "  %turn = phi i64 [0, %start], [%next, %loop]",
        *[f"  %x{k} = phi {vector} [zeroinitializer, %start], [%y{k}, %loop]" for k in sums],
        f"  %at = mul i64 %turn, {_LINE * _UNROLL}",
    ]
    for s in range(streams):
        lines.append(f"  %o{s} = mul i64 %part, {s}")
        lines.append(f"  %a{s} = add i64 %o{s}, %at")
        lines.append(f"  %s{s} = getelementptr i8, ptr %data, i64 %a{s}")
        for line in range(_UNROLL if ahead else 0):
            at = f"%f{s}_{line}"
            lines.append(f"  {at} = getelementptr i8, ptr %s{s}, i64 {ahead + line * _LINE}")
            lines.append(f"  call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 3, i32 1)")
    last = {k: f"%x{k}" for k in sums}
    for number, (s, byte) in enumerate(places):
        k = number % len(sums)
        name = f"%y{k}" if number + len(sums) >= len(places) else f"%t{number}"
        lines.append(f"  %p{number} = getelementptr i8, ptr %s{s}, i64 {byte}")
        lines.append(f"  %v{number} = load {vector}, ptr %p{number}, align 4")
        lines.append(f"  {name} = xor {vector} {last[k]}, %v{number}")
        last[k] = name
    lines += [
        "  %next = add i64 %turn, 1",
        "  %more = icmp ult i64 %next, %turns",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *_folded("xor", vector, [last[k] for k in sums]),
        "  ret void\n}",
    ]
    return "\n".join(lines)


def _folded(operation: str, vector: str, values: list[str]) -> list[str]:
    """All `values` into one, stored, so that no chain can be left out."""
    lines, total = [], values[0]
    for k, value in enumerate(values[1:]):
        lines.append(f"  %fold{k} = {operation} {vector} {total}, {value}")
        total = f"%fold{k}"
    return [*lines, f"  store {vector} {total}, ptr %sink, align 4"]


@cache
def _kernel(name: str, ir: str) -> _Kernel:
    """Machine code for the function `name(ptr, i32, ...)` of `ir`."""
    (code,) = load([ObjectCode(name, object_code(ir, Target.host()))])
    function = ctypes.CFUNCTYPE(None)(code.address)

    def call(gate: int, threads: int, *arguments: int) -> None:
        _ = code  # its memory lives as long as it does
        function(ctypes.c_void_p(gate), ctypes.c_int32(threads), *map(ctypes.c_int64, arguments))

    return call
