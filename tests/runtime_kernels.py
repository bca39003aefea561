"""Hand-written kernels and programs made of them, for the tests of the runtime."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from striate.compiler.codegen import object_code
from striate.compiler.program import Kernel, Pointer, Program, Step
from striate.compiler.target import Target

BLOCK = 16

# Block c of y is block c of x plus one.
_ADVANCE = """
define void @SYMBOL(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %x.at = getelementptr ptr, ptr %pointers, i64 0
  %y.at = getelementptr ptr, ptr %pointers, i64 1
  %x = load ptr, ptr %x.at
  %y = load ptr, ptr %y.at
  %i = mul i64 %chunk, 16
  %s = getelementptr float, ptr %x, i64 %i
  %d = getelementptr float, ptr %y, i64 %i
  %v = load <16 x float>, ptr %s, align 4
  %w = fadd <16 x float> %v, splat (float 1.0)
  store <16 x float> %w, ptr %d, align 4
  ret void
}
"""

# Block c of y is block n-1-c of x plus one, by way of scratch memory.
_REVERSE = """
define void @SYMBOL(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %y.at = getelementptr ptr, ptr %pointers, i64 1
  %last.at = getelementptr ptr, ptr %pointers, i64 2
  %x = load ptr, ptr %pointers
  %y = load ptr, ptr %y.at
  %last.ptr = load ptr, ptr %last.at
  %last.f = load float, ptr %last.ptr
  %last = fptosi float %last.f to i64
  %other = sub i64 %last, %chunk
  %i = mul i64 %other, 16
  %o = mul i64 %chunk, 16
  %s = getelementptr float, ptr %x, i64 %i
  %d = getelementptr float, ptr %y, i64 %o
  %v = load <16 x float>, ptr %s, align 4
  store <16 x float> %v, ptr %scratch, align 64
  %u = load volatile <16 x float>, ptr %scratch, align 64
  %w = fadd <16 x float> %u, splat (float 1.0)
  store <16 x float> %w, ptr %d, align 4
  ret void
}
"""

# As _ADVANCE, but the block waits in scratch memory for `pointers[2][0]` turns of a loop.
_SLOW = """
define void @SYMBOL(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %y.at = getelementptr ptr, ptr %pointers, i64 1
  %n.at = getelementptr ptr, ptr %pointers, i64 2
  %x = load ptr, ptr %pointers
  %y = load ptr, ptr %y.at
  %n.ptr = load ptr, ptr %n.at
  %n.f = load float, ptr %n.ptr
  %n = fptosi float %n.f to i64
  %i = mul i64 %chunk, 16
  %s = getelementptr float, ptr %x, i64 %i
  %d = getelementptr float, ptr %y, i64 %i
  %v = load <16 x float>, ptr %s, align 4
  store volatile <16 x float> %v, ptr %scratch, align 64
  br label %loop
loop:
  %k = phi i64 [ 0, %0 ], [ %k.next, %loop ]
  %ignored = load volatile float, ptr %scratch
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %n
  br i1 %more, label %loop, label %end
end:
  %u = load volatile <16 x float>, ptr %scratch, align 64
  %w = fadd <16 x float> %u, splat (float 1.0)
  store <16 x float> %w, ptr %d, align 4
  ret void
}
"""

# y = x * pointers[2][0] for one block: shows how denormals are treated.
_SCALE = """
define void @SYMBOL(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %y.at = getelementptr ptr, ptr %pointers, i64 1
  %a.at = getelementptr ptr, ptr %pointers, i64 2
  %x = load ptr, ptr %pointers
  %y = load ptr, ptr %y.at
  %a.ptr = load ptr, ptr %a.at
  %a = load float, ptr %a.ptr
  %i = mul i64 %chunk, 16
  %s = getelementptr float, ptr %x, i64 %i
  %d = getelementptr float, ptr %y, i64 %i
  %v = load float, ptr %s, align 4
  %w = fmul float %v, %a
  store float %w, ptr %d, align 4
  ret void
}
"""

# Block c of y begins with all that the kernel is told besides its chunk: the scratch memory, the
# chunk to come, where what later steps read lies, the pace; after some turns as in _SLOW.
_SIGN = """
define void @SYMBOL(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %y.at = getelementptr ptr, ptr %pointers, i64 1
  %n.at = getelementptr ptr, ptr %pointers, i64 2
  %y = load ptr, ptr %y.at
  %n.ptr = load ptr, ptr %n.at
  %n.f = load float, ptr %n.ptr
  %n = fptosi float %n.f to i64
  br label %loop
loop:
  %k = phi i64 [ 0, %0 ], [ %k.next, %loop ]
  store volatile i64 %k, ptr %scratch
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %n
  br i1 %more, label %loop, label %end
end:
  %i = mul i64 %chunk, 16
  %d = getelementptr float, ptr %y, i64 %i
  store ptr %scratch, ptr %d, align 4
  %e = getelementptr i64, ptr %d, i64 1
  store i64 %next, ptr %e, align 4
  %f = getelementptr i64, ptr %d, i64 2
  store ptr %later, ptr %f, align 4
  %g = getelementptr i64, ptr %d, i64 3
  store i64 %pace, ptr %g, align 4
  ret void
}
"""

_SOURCES = {
    "advance": _ADVANCE,
    "reverse": _REVERSE,
    "slow": _SLOW,
    "scale": _SCALE,
    "sign": _SIGN,
}


@lru_cache
def kernel(name: str, symbol: str | None = None, scratch_bytes: int = 64) -> Kernel:
    """The kernel `name`, exported as `symbol`."""
    symbol = symbol or name
    ir = _SOURCES[name].replace("SYMBOL", symbol)
    return Kernel(symbol, "by hand", "", "", ir, assemble(ir), scratch_bytes)


def assemble(ir: str, triple: str | None = None) -> bytes:
    """The object code of `ir` for this machine, or for `triple`."""
    return object_code(ir, replace(Target.named("generic"), triple=triple or ""))


def chain(
    phases: int,
    chunks: int,
    name: str = "advance",
    number: float = 0.0,
    steps: int = 1,
    symbol: str | None = None,
    scratch_bytes: int = 64,
) -> Program:
    """y = x + phases, block by block, through the arena; each phase has `steps` equal shares."""
    constants = np.full(16, number, np.float32)
    size = 4 * BLOCK * chunks
    share, arena = chunks // steps, 2 * size

    def place(phase: int) -> tuple[str, int]:
        if phase == 0:
            return "input", 0
        return ("output", 0) if phase == phases else ("arena", size * (phase % 2))

    def step(phase: int, part: int) -> Step:
        count = share if part < steps - 1 else chunks - share * (steps - 1)
        offset = 4 * BLOCK * share * part
        pointers = tuple(
            Pointer(space, 0, base + offset)  # type: ignore[arg-type]
            for space, base in (place(phase), place(phase + 1))
        )
        return Step(f"p{phase}", 0, count, (*pointers, Pointer("constant", 0, 0)), 0, 0)

    table = tuple(tuple(step(p, part) for part in range(steps)) for p in range(phases))
    shape = (chunks, BLOCK)
    return Program(
        kernels=(kernel(name, symbol, scratch_bytes),),
        phases=table,
        constants=constants,
        preparation=None,
        arena_bytes=arena,
        inputs=(("x", shape),),
        outputs=(shape,),
    )


def ramp(chunks: int) -> NDArray[np.float32]:
    """float32[chunks, BLOCK] of small whole numbers, all blocks different."""
    return np.arange(chunks * BLOCK, dtype=np.float32).reshape(chunks, BLOCK)
