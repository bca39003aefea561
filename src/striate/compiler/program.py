"""A compiled network as plain data: kernels, the phases that call them, their memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from striate.notation.ir import Shape, Statement

Array = NDArray[np.float32]

Space = Literal["arena", "constant", "input", "output"]


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place: `offset` bytes into the arena (index 0), a constant, an input or an output."""

    space: Space
    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class Room:
    """What a chunk can ask for ahead: `lines` cache lines in each of `rounds` rounds, or more."""

    rounds: int = 0
    lines: int = 0


NO_ROOM = Room()


@dataclass(frozen=True, slots=True)
class Kernel:
    """Machine code for a statement.

        void symbol(ptr pointers, i64 chunk, ptr scratch, i64 next, ptr later, i64 pace)

    `pointers` is the step's array of addresses, `scratch` the calling thread's own memory of at
    least `scratch_bytes` bytes, aligned to 64. `next` is the chunk that the thread takes after this
    one unless another does; the last one is its own next. What steps to come will read lies from
    `later` on: each of the `room`'s rounds asks for some of it, `pace` bytes after the one before.
    """

    symbol: str
    schedule: str
    equation: str
    plan: str
    write: Callable[[], str] | None
    code: bytes
    scratch_bytes: int
    room: Room = NO_ROOM

    @property
    def ir(self) -> str:
        """The LLVM IR that `code` was made of, written anew; ValueError if it was stored."""
        if self.write is None:
            raise ValueError(f"{self.symbol} was loaded as machine code: its IR is not kept")
        return self.write()


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Constants that the chunks of a step ask for, each `share` bytes, the first from `offset` on.

    A chunk goes on by `pace` bytes a round; by none where there is nothing to ask for.
    """

    offset: int = 0
    share: int = 0
    pace: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a kernel: `chunks` independent pieces of work, which any thread may claim."""

    label: str
    kernel: int
    chunks: int
    pointers: tuple[Pointer, ...]
    multiply_adds: int
    bytes_moved: int
    later: Prefetch = Prefetch()


@dataclass(frozen=True, slots=True)
class View:
    """A tensor in the arena, whole when phase number `phase` is over; `strides` in bytes."""

    phase: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Phases run one after another; the steps and chunks within a phase run in any order.

    `constants` is the block of packed weights; where it is None, `preparation` makes it.
    `arena_bytes` is all the memory that activations take (bytes). `sections` are pairs: so many
    phases for one part of the batch, which follow one another for so many parts; none stands for
    one section of one part. A program that is made to be watched has `views` in the place of
    `outputs`.
    """

    kernels: tuple[Kernel, ...]
    phases: tuple[tuple[Step, ...], ...]
    constants: Array | None
    preparation: "Preparation | None"
    arena_bytes: int
    inputs: tuple[tuple[str, Shape], ...]
    outputs: tuple[Shape, ...]
    sections: tuple[tuple[int, int], ...] = ()
    views: tuple[View, ...] = ()

    def repetitions(self) -> list[range]:
        """For every phase of a part, in order, the numbers of the phases that repeat it."""
        found, start = [], 0
        for period, parts in self.sections or ((len(self.phases), 1),):
            end = start + period * parts
            found += [range(first, end, period) for first in range(start, start + period)]
            start = end
        return found


@dataclass(frozen=True, slots=True)
class Value:
    """The output of `statement`, taken in float64; its operands are arrays by their numbers."""

    statement: Statement
    operands: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How constants come from parameters, once: first `values`, then the copies of `program`.

    The arrays are numbered, the parameters first and the values after them. The program's inputs
    are those numbered in `inputs`, in memory order; its one output is the block of constants, its
    own constants are `words` (int64), which describe the copies.
    """

    parameters: tuple[Array, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    words: tuple[int, ...]
    program: Program
