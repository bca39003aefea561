"""What a schedule is: which statements it fits, what it asks of memory, and the code it writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from striate.compiler.balance import Balance
from striate.compiler.builder import Builder
from striate.compiler.layout import Halo, Layout
from striate.compiler.program import NO_ROOM, Room
from striate.compiler.target import Target
from striate.compiler.toom_cook import Matrices
from striate.notation.ir import Affine, Read, Statement


@dataclass(frozen=True, slots=True)
class Task:
    """A statement with every tensor's place in memory: all that a kernel's code depends on.

    `layouts` holds (tensor, layout) of the operands in the statement's order, then the output.
    """

    statement: Statement
    layouts: tuple[tuple[str, Layout], ...]
    target: Target

    @property
    def output(self) -> Read:
        return self.statement.equation.output

    def layout(self, tensor: str) -> Layout:
        return dict(self.layouts)[tensor]

    def step(self, read: Read, index: str) -> int:
        """Bytes that `read` moves by when `index` grows by one."""
        strides = self.layout(read.tensor).strides
        return sum(
            stride * affine.coefficient(index)
            for stride, affine in zip(strides, read.access, strict=True)
        )

    def base(self, read: Read) -> int:
        """The byte offset of `read` where every index is 0."""
        layout = self.layout(read.tensor)
        offsets = zip(layout.strides, read.access, strict=True)
        return layout.origin + sum(stride * affine.offset for stride, affine in offsets)


@dataclass(frozen=True, slots=True)
class Emission:
    """The code of a task: `chunks` pieces of work, and how operands must be packed for it.

    `write` makes the code, which is not needed where the cache has it; `plan` says in words what
    was decided; `packing` maps an operand to the statement `packed[...] = operand[...]` whose
    output the kernel reads in its stead, transformed along its axes 1 and 2, `M packed N'`, by the
    matrices M, N that `transforms` holds for the operand, if any. An operand with a balance is
    scaled after that, and followed by its corrections. One of the run may be made ready `ahead`.
    A chunk has `room` to fetch what steps after this one read.
    """

    write: Callable[[], Builder]
    chunks: int
    plan: str
    packing: Mapping[str, Statement] = field(default_factory=dict)
    scratch_bytes: int = 0
    transforms: Mapping[str, Matrices] = field(default_factory=dict)
    balances: Mapping[str, Balance] = field(default_factory=dict)
    ahead: Mapping[str, "Ahead"] = field(default_factory=dict)
    room: Room = NO_ROOM


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is made of an operand before a kernel that reads it instead: `nbytes` bytes.

    The emission is that of `task`, which makes its output of its one operand.
    """

    task: Task
    emission: Emission
    nbytes: int


class Schedule(Protocol):
    """One way to compute a family of statements. Each is a module of this folder.

    Each output is written once, after the elements in its own place were read for it, so that it
    may lie in the memory of one of the operands (`place.in_place`).
    """

    name: str

    def seconds(self, statement: Statement, target: Target) -> float | None:
        """The estimated time on one core (s), or None where the schedule does not fit."""

    def halo(self, statement: Statement) -> dict[str, Halo]:
        """The margin of zeros that operands must have around them."""

    def emit(self, task: Task) -> Emission:
        """The kernel for `task`; its pointers are the task's tensors in order."""


class FastSchedule(Schedule, Protocol):
    """One that multiplies less, and transforms an operand before the run, once and for all."""

    def transformed(self, statement: Statement, target: Target) -> str:
        """The tensor that is transformed."""


def window_halo(statement: Statement, read: Read) -> Halo | None:
    """How far `read` reaches past axes 1 and 2 of its tensor; None where it leaves another axis."""
    shape = dict(statement.shapes)[read.tensor]
    margins = [
        overhang(statement, affine, size) for affine, size in zip(read.access, shape, strict=True)
    ]
    if any(m is None for m in margins):
        return None
    known = [m for m in margins if m is not None]
    inside = len(shape) == 4
    if any(any(m) for axis, m in enumerate(known) if not inside or axis not in (1, 2)):
        return None
    return (*known[1], *known[2]) if inside else (0, 0, 0, 0)


def overhang(statement: Statement, affine: Affine, size: int) -> tuple[int, int] | None:
    """How far an affine access goes below 0 and past `size`; None for divisions."""
    if affine.divisor != 1 or affine.exact:
        return None
    extents = dict(statement.extents)
    low = high = affine.offset
    for index, coefficient in affine.terms:
        reach = coefficient * (extents[index] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return max(-low, 0), max(high - (size - 1), 0)
