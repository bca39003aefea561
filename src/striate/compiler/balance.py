"""What Winograd's inner product asks of weights and data: which terms are pairs, which scales.

The weights of each feature are scaled by a power of two. Behind all panels there are two rows for
each: what the pairs of its features add to their sums, taken off, and the inverse scales.
`striate.compiler.schedules.pairs` tells what for.
"""

from dataclasses import dataclass

from striate.compiler.builder import Builder, Value

# Of so many terms the first two are a pair.
GROUP = 3


@dataclass(frozen=True, slots=True)
class Balance:
    """What is to be balanced: `panels` of `runs` runs of `terms` terms of `width` features."""

    panels: int
    runs: int
    terms: int
    width: int

    @property
    def offset(self) -> int:
        """Where the corrections begin (bytes)."""
        return 4 * self.panels * self.runs * self.terms * self.width

    @property
    def nbytes(self) -> int:
        """The size of the panels and their corrections (bytes)."""
        return self.offset + 2 * 4 * self.panels * self.width


def pair_signs(terms: int) -> dict[int, int]:
    """The first terms of the pairs among the first `terms` of a vector, with their signs.

    Of three terms two are a pair. Signs alternate, so that what pairs add to a sum beyond its terms
    stays small.
    """
    return {GROUP * n: -1 if n % 2 else 1 for n in range(terms // GROUP)}


def emit_scale(b: Builder, exponent: Value, kind: str) -> tuple[Value, Value]:
    """The power of two that takes a number of that exponent to [1, 2), and its inverse.

    `exponent` holds the bits of the exponent in place, an integer or a vector of them as `kind`
    says. The inverse for zero is zero.
    """
    scalar = kind == "i32"
    suffix, result = (kind, "float") if scalar else (f"v{b.target.lanes}i32", b.vector)
    high, both = (str(n << 23) if scalar else f"splat (i32 {n << 23})" for n in (253, 254))
    bits = b.call(kind, f"llvm.umin.{suffix}", f"{kind} {exponent}", f"{kind} {high}")
    scale = b.emit(f"sub {kind} {both}, {bits}")
    return (
        b.emit(f"bitcast {kind} {scale} to {result}"),
        b.emit(f"bitcast {kind} {bits} to {result}"),
    )


def emit_exponents(b: Builder, most: Value, value: Value) -> Value:
    """The larger exponents, lane by lane, of `value` and of those in `most`."""
    lanes = b.target.lanes
    kind = f"<{lanes} x i32>"
    bits = b.emit(f"bitcast {b.vector} {value} to {kind}")
    bits = b.emit(f"and {kind} {bits}, splat (i32 {255 << 23})")
    return b.call(kind, f"llvm.umax.v{lanes}i32", f"{kind} {most}", f"{kind} {bits}")
