"""A small writer of LLVM IR text: values are names, loops are `with` blocks.

Addresses are byte offsets from pointers; an offset is a Python int or the name of an i64 value.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from striate.compiler.layout import CACHE_LINE
from striate.compiler.target import Target

Value = str
Offset = int | Value


def number(value: float) -> str:
    """The IR literal of the float32 nearest to `value`."""
    with np.errstate(over="ignore"):
        wide = np.float64(np.float32(value))
    return f"0x{int(wide.view(np.uint64)):016X}"


# Where the next line that later steps read lies: in memory, as any loop may move it on.
_KEEP_LATER = "  %later.at = alloca ptr\n  store ptr %later, ptr %later.at\n"
# Operations whose result is not a function of their operands alone.
_CHANGING = ("load ", "phi ")


@dataclass(slots=True)
class Branch:
    """An open branch: the values it carries, and what they become if it is taken."""

    values: list[Value]
    following: list[Value] = field(default_factory=list)


@dataclass(slots=True)
class Loop:
    """An open loop: its index, the values it carries, and what they become in the next round."""

    index: Value
    values: list[Value]
    following: list[Value] = field(default_factory=list)


class Builder:
    """Writes the body of one kernel for `target`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.vector = target.vector
        self._lines: list[str] = []
        self._declarations: dict[str, None] = {}
        self._count = 0
        self._block = "entry"
        # Operations without effect whose results are at hand where the next line goes.
        self._known: dict[str, Value] = {}

    def new(self, stem: str = "v") -> Value:
        self._count += 1
        return f"%{stem}{self._count}"

    def emit(self, operation: str) -> Value:
        """The name of the result of `operation`, which is written unless it is known already."""
        if operation in self._known:
            return self._known[operation]
        name = self.new()
        self._lines.append(f"  {name} = {operation}")
        if not operation.startswith(_CHANGING) and "@llvm.masked." not in operation:
            self._known[operation] = name
        return name

    def effect(self, operation: str) -> None:
        """Write an operation that has no value."""
        self._lines.append(f"  {operation}")

    def call(self, result: str, function: str, *arguments: str, flags: str = "") -> Value:
        """Call an intrinsic; `arguments` are `type value` texts, `flags` of floating point."""
        return self.emit(self._call(result, function, arguments, flags))

    def _call(self, result: str, function: str, arguments: Sequence[str], flags: str = "") -> str:
        types = ", ".join(_type(argument) for argument in arguments)
        self._declarations[f"declare {result} @{function}({types})"] = None
        return f"call {flags} {result} @{function}({', '.join(arguments)})"

    # Integers and addresses

    def add(self, a: Offset, b: Offset) -> Offset:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        if b == 0:
            return a
        return self.emit(f"add nsw i64 {a}, {b}")

    def multiply(self, a: Offset, b: int) -> Offset:
        if isinstance(a, int):
            return a * b
        if b == 1:
            return a
        return 0 if b == 0 else self.emit(f"mul nsw i64 {a}, {b}")

    def minimum(self, a: Offset, b: Offset) -> Offset:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.call("i64", "llvm.smin.i64", f"i64 {a}", f"i64 {b}")

    def maximum(self, a: Offset, b: Offset) -> Offset:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.call("i64", "llvm.smax.i64", f"i64 {a}", f"i64 {b}")

    def divide(self, a: Offset, b: int) -> Offset:
        """`a // b` for a >= 0."""
        if isinstance(a, int):
            return a // b
        return a if b == 1 else self.emit(f"udiv i64 {a}, {b}")

    def remainder(self, a: Offset, b: int) -> Offset:
        """`a % b` for a >= 0."""
        if isinstance(a, int):
            return a % b
        return 0 if b == 1 else self.emit(f"urem i64 {a}, {b}")

    def at(self, pointer: Value, offset: Offset) -> Value:
        """The address `offset` bytes past `pointer`."""
        if offset == 0:
            return pointer
        return self.emit(f"getelementptr inbounds i8, ptr {pointer}, i64 {offset}")

    def argument(self, position: int) -> Value:
        """The address that the step passes as its pointer number `position`."""
        return self.emit(
            f"load ptr, ptr {self.at('%pointers', 8 * position)}, align 8, !invariant.load !0"
        )

    # Floats

    def zero(self) -> Value:
        return "zeroinitializer"

    def splat(self, value: float) -> Value:
        """A vector of one constant."""
        if value == 0 and not np.signbit(value):
            return "zeroinitializer"
        return f"splat (float {number(value)})"

    def load(self, pointer: Value, lanes: int | None = None) -> Value:
        """A vector from memory; only its first `lanes` elements are touched."""
        full = self.target.lanes
        if lanes is None or lanes >= full:
            return self.emit(f"load {self.vector}, ptr {pointer}, align 4")
        mask = self._mask(lanes)
        return self.call(
            self.vector,
            f"llvm.masked.load.v{full}f32.p0",
            f"ptr {pointer}",
            "i32 4",
            f"<{full} x i1> {mask}",
            f"{self.vector} zeroinitializer",
        )

    def store(self, value: Value, pointer: Value, lanes: int | None = None) -> None:
        """Write a vector; only its first `lanes` elements."""
        full = self.target.lanes
        if lanes is None or lanes >= full:
            self.effect(f"store {self.vector} {value}, ptr {pointer}, align 4")
            return
        self.store_masked(value, pointer, self._mask(lanes))

    def store_masked(self, value: Value, pointer: Value, mask: Value) -> None:
        """Write the elements of a vector whose bit of `mask` is set."""
        lanes = self.target.lanes
        arguments = (f"{self.vector} {value}", f"ptr {pointer}", "i32 4", f"<{lanes} x i1> {mask}")
        self.effect(self._call("void", f"llvm.masked.store.v{lanes}f32.p0", arguments))

    def load_scalar(self, pointer: Value) -> Value:
        return self.emit(f"load float, ptr {pointer}, align 4")

    def store_scalar(self, value: Value, pointer: Value) -> None:
        self.effect(f"store float {value}, ptr {pointer}, align 4")

    def broadcast(self, scalar: Value) -> Value:
        """A vector whose every lane is `scalar`."""
        one = self.emit(f"insertelement {self.vector} poison, float {scalar}, i64 0")
        lanes = self.target.lanes
        return self.emit(
            f"shufflevector {self.vector} {one}, {self.vector} poison, "
            f"<{lanes} x i32> zeroinitializer"
        )

    def shuffle(self, value: Value, lanes: Sequence[int], other: Value = "poison") -> Value:
        """Lane k of the result is lane `lanes[k]` of `value`, or past its end, of `other`."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.emit(
            f"shufflevector {self.vector} {value}, {self.vector} {other}, "
            f"<{len(lanes)} x i32> <{mask}>"
        )

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """`a * b + c` in one rounding where the target can, else in two."""
        name = "fma" if self.target.fma else "fmuladd"
        v = self.vector
        return self.call(
            v, f"llvm.{name}.v{self.target.lanes}f32", f"{v} {a}", f"{v} {b}", f"{v} {c}"
        )

    def prefetch(self, pointer: Value, level: int = 1) -> None:
        """Ask for a cache line that will be read or written, in the cache of that level.

        As for a read: asking to write was slower for lines that other cores hold too (Zen 4).
        """
        arguments = (f"ptr {pointer}", "i32 0", f"i32 {4 - level}", "i32 1")
        self.effect(self._call("void", "llvm.prefetch.p0", arguments))

    def prefetch_later(self, lines: int) -> None:
        """Ask for `lines` cache lines of what later steps read, and go on by the pace."""
        place = self.emit("load ptr, ptr %later.at")
        for line in range(lines):
            self.prefetch(self.at(place, CACHE_LINE * line))
        self.effect(f"store ptr {self.at(place, '%pace')}, ptr %later.at")

    def _mask(self, lanes: int) -> str:
        bits = ", ".join(f"i1 {int(lane < lanes)}" for lane in range(self.target.lanes))
        return f"<{bits}>"

    # Control

    @contextmanager
    def loop(
        self,
        start: Offset,
        stop: Offset,
        step: int = 1,
        carried: Sequence[tuple[str, Value]] = (),
        *,
        maybe_empty: bool = False,
    ) -> Iterator[Loop]:
        """Run the block for start, start + step, ... below stop, carrying `(type, value)` pairs.

        After the block `loop.values` are the final ones. Without `maybe_empty` the loop is known
        to run at least once.
        """
        head, latch, done = (self.new(stem)[1:] for stem in ("head", "latch", "done"))
        before = self._block
        if maybe_empty:
            some = self.emit(f"icmp slt i64 {start}, {stop}")
            self.effect(f"br i1 {some}, label %{head}, label %{done}")
        else:
            self.effect(f"br label %{head}")
        self._label(head)
        place = len(self._lines)
        state = Loop(self.new("i"), [self.new("c") for _ in carried])
        entering = list(state.values)
        with self._scope():
            yield state
            following = state.following or entering
            if len(following) != len(carried):
                raise AssertionError("a loop must say what every carried value becomes")
            self.effect(f"br label %{latch}")
            self._label(latch)
            index = self.emit(f"add nsw i64 {state.index}, {step}")
            more = self.emit(f"icmp slt i64 {index}, {stop}")
        self.effect(f"br i1 {more}, label %{head}, label %{done}")
        phis = [f"  {state.index} = phi i64 [{start}, %{before}], [{index}, %{latch}]"]
        phis += [
            f"  {name} = phi {kind} [{value}, %{before}], [{after}, %{latch}]"
            for name, (kind, value), after in zip(entering, carried, following, strict=True)
        ]
        self._lines[place:place] = phis
        self._label(done)
        if maybe_empty:
            state.values = [
                self.emit(f"phi {kind} [{value}, %{before}], [{after}, %{latch}]")
                for (kind, value), after in zip(carried, following, strict=True)
            ]
        else:
            state.values = list(following)

    @contextmanager
    def when(self, condition: Value, carried: Sequence[tuple[str, Value]] = ()) -> Iterator[Branch]:
        """Run the block if the i1 `condition` holds.

        It starts from `branch.values`; after the block they are what it left in `following`, or as
        before where it did not run.
        """
        then, done = self.new("then")[1:], self.new("done")[1:]
        before = self._block
        self.effect(f"br i1 {condition}, label %{then}, label %{done}")
        state = Branch([value for _, value in carried])
        with self._scope():
            self._label(then)
            yield state
        following = state.following or state.values
        if len(following) != len(carried):
            raise AssertionError("a branch must say what every carried value becomes")
        last = self._block
        self.effect(f"br label %{done}")
        self._label(done)
        state.values = [
            self.emit(f"phi {kind} [{value}, %{before}], [{after}, %{last}]")
            for (kind, value), after in zip(carried, following, strict=True)
        ]

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """What becomes known inside is forgotten after."""
        outside = dict(self._known)
        yield
        self._known = outside

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._block = name

    def function(self, symbol: str) -> str:
        """The module with everything written so far as the kernel `symbol`."""
        body = "\n".join(self._lines)
        declarations = "\n".join(self._declarations)
        return (
            f"define void @{symbol}(ptr noalias %pointers, i64 %chunk, ptr noalias %scratch, "
            f"i64 %next, ptr %later, i64 %pace) {{\n"
            f"entry:\n{_KEEP_LATER}{body}\n  ret void\n}}\n{declarations}\n!0 = !{{}}\n"
        )


def _type(argument: str) -> str:
    """The type of a `type value` text."""
    return argument[: argument.index(">") + 1] if argument[0] == "<" else argument.split(" ")[0]
