"""Winograd's inner product: two products of a sum for one multiplication and two additions.

    (a0 + w1) * (a1 + w0) = a0*w0 + a1*w1 + a0*a1 + w0*w1
    (w1 - a0) * (a1 - w0) = a0*w0 + a1*w1 - a0*a1 - w0*w1

The products of data alone are summed once for a pixel, those of weights once for a feature, and
both are taken off. A CPU that adds on units of their own does two additions and two multiplications
in the time of two: of every three terms two are a pair, and take the time of two terms together.

Sums of data and weights would lose the bits of the smaller. So each pixel's data are scaled by a
power of two, and each feature's weights: their largest are in [1, 2), and a sum's error is bounded
by the largest of the data times the largest of the weights, as without pairs, times a small factor.

S. Winograd, A new algorithm for inner product, IEEE Transactions on Computers 17 (1968), 693-694;
scaling: R. P. Brent, Algorithms for matrix multiplication, Stanford STAN-CS-70-157 (1970).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from striate.compiler.balance import GROUP, Balance, emit_exponents, emit_scale, pair_signs
from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.target import Target

# The time that pairs take, as measured (Zen 4), in that of a multiply-add of vectors: a term of a
# vector of sums; what is more to begin and end one; to balance a vector of a pixel's terms; and a
# pixel, however few they are.
TERM, SUM, VECTOR, PIXEL = 0.75, 1.0, 4.0, 25.0
# Up to so many vectors of a pixel are balanced without a loop.
_STRAIGHT = 4


def most_pixels(target: Target) -> int:
    """The most pixels of a register tile: with more sums LLVM spills some of them."""
    return target.registers // 2 - 2


def emit_balanced(
    b: Builder, sources: Sequence[Value], target: Value, terms: int, step: int | None = None
) -> tuple[Value, Value]:
    """Write a pixel's terms, scaled by a power of two, to `target`.

    They come from `sources`, `terms` from each. Vectors of them lie `step` bytes apart in all
    (default: one after another). Gives two floats: the sum of the signed products of the pixel's
    pairs, and the inverse of its scale.
    """
    lanes = b.target.lanes
    size, kind = step or 4 * lanes, f"<{lanes} x i32>"
    whole, rest = divmod(terms, lanes)
    most = b.zero()
    for source in sources:

        def larger(number: Offset, most: Value, source: Value = source) -> Value:
            return emit_exponents(b, most, b.load(b.at(source, b.multiply(number, size))))

        most = _fold(b, whole, kind, most, larger)
        if rest:
            most = emit_exponents(b, most, b.load(b.at(source, whole * size), rest))
    exponent = b.call("i32", f"llvm.vector.reduce.umax.v{lanes}i32", f"{kind} {most}")
    scale, inverse = emit_scale(b, exponent, "i32")
    times, total = b.broadcast(scale), b.zero()

    def move(source: Value, to: Value, bound: int | None, total: Value) -> Value:
        value = b.emit(f"fmul {b.vector} {b.load(source, bound)}, {times}")
        b.store(value, to, bound)
        return _pair_products(b, value, bound or lanes, total)

    for number, source in enumerate(sources):
        to = b.at(target, 4 * terms * number)

        def vector(number: Offset, total: Value, source: Value = source, to: Value = to) -> Value:
            offset = b.multiply(number, size)
            return move(b.at(source, offset), b.at(to, offset), None, total)

        total = _fold(b, whole, b.vector, total, vector)
        if rest:
            total = move(b.at(source, whole * size), b.at(to, whole * size), rest, total)
    name = f"llvm.vector.reduce.fadd.v{lanes}f32"
    return b.call("float", name, "float 0.0", f"{b.vector} {total}", flags="reassoc"), inverse


def _fold(
    b: Builder, count: int, kind: str, value: Value, body: Callable[[Offset, Value], Value]
) -> Value:
    """`value = body(n, value)` for every n below `count`, a value of that kind; few straight."""
    if count <= _STRAIGHT:
        for number in range(count):
            value = body(number, value)
        return value
    with b.loop(0, count, 1, [(kind, value)]) as loop:
        loop.following = [body(loop.index, loop.values[0])]
    return loop.values[0]


def _pair_products(b: Builder, value: Value, terms: int, total: Value) -> Value:
    """`total` plus the signed products of the pairs in a vector of terms."""
    lanes = range(b.target.lanes)
    signs = pair_signs(terms)
    following = b.shuffle(value, [min(lane + 1, lanes[-1]) for lane in lanes])
    chosen = ", ".join(f"float {float(signs.get(lane, 0))}" for lane in lanes)
    return b.fma(b.emit(f"fmul {b.vector} {value}, {following}"), f"<{chosen}>", total)


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the operands of a register tile lie: `offsets` (bytes) of its pixels' terms from
    `pixels`, and the features' weights at `weights`, `width` bytes a term.
    """

    pixels: Value
    offsets: tuple[int, ...]
    weights: Value
    width: int

    def moved(self, b: Builder, terms: Offset) -> "Rows":
        """Those of so many terms further on."""
        pixels = b.at(self.pixels, b.multiply(terms, 4))
        weights = b.at(self.weights, b.multiply(terms, self.width))
        return replace(self, pixels=pixels, weights=weights)


def emit_pairs(b: Builder, rows: Rows, terms: int, sums: Sequence[Value]) -> list[Value]:
    """Add the products of `terms` balanced terms, at most a vector's, to each pixel's sums."""
    signs, result = pair_signs(terms), list(sums)
    first, alike = 0, len(signs) // 2
    if alike > 1:
        # Two threes make a round: LLVM takes its time for long code.
        with b.loop(0, alike, 1, [(b.vector, one) for one in result]) as loop:
            here = rows.moved(b, b.multiply(loop.index, 2 * GROUP))
            loop.following = _threes(b, here, [signs[0], signs[GROUP]], loop.values)
        result, first = loop.values, 2 * GROUP * alike
    rows = rows.moved(b, first)
    rest = [sign for at, sign in signs.items() if at >= first]
    result = _threes(b, rows, rest, result)
    for term in range(GROUP * len(rest), terms - first):
        result = _single(b, rows, term, result)
    return result


def _threes(b: Builder, rows: Rows, signs: Sequence[int], sums: Sequence[Value]) -> list[Value]:
    """Threes of terms, the first two of each a pair with its sign."""
    result = list(sums)
    for number, sign in enumerate(signs):
        result = _pair(b, rows, GROUP * number, sign, result)
        result = _single(b, rows, GROUP * number + 2, result)
    return result


def _pair(b: Builder, rows: Rows, first: int, sign: int, sums: Sequence[Value]) -> list[Value]:
    """The terms `first` and `first` + 1."""
    one, two = (_weights(b, rows, first + k) for k in (0, 1))
    add, result = "fadd" if sign > 0 else "fsub", list[Value]()
    for offset in rows.offsets:
        a0, a1 = (_broadcast(b, rows, offset, first + k) for k in (0, 1))
        for w0, w1 in zip(one, two, strict=True):
            left = b.emit(f"{add} {b.vector} {w1}, {a0}")
            right = b.emit(f"{add} {b.vector} {w0}, {a1}")
            # Of (w1 - a0) * (a1 - w0) the second is there with the other sign.
            left = left if sign > 0 else b.emit(f"fneg {b.vector} {left}")
            result.append(b.fma(left, right, sums[len(result)]))
    return result


def _single(b: Builder, rows: Rows, term: int, sums: Sequence[Value]) -> list[Value]:
    weights, result = _weights(b, rows, term), list[Value]()
    for offset in rows.offsets:
        value = _broadcast(b, rows, offset, term)
        result += [b.fma(value, w, sums[len(result) + k]) for k, w in enumerate(weights)]
    return result


def _weights(b: Builder, rows: Rows, term: int) -> list[Value]:
    """The vectors of weights of a term."""
    steps = range(0, rows.width, 4 * b.target.lanes)
    return [b.load(b.at(rows.weights, term * rows.width + step)) for step in steps]


def _broadcast(b: Builder, rows: Rows, offset: int, term: int) -> Value:
    return b.broadcast(b.load_scalar(b.at(rows.pixels, offset + 4 * term)))


def emit_kept(b: Builder, packed: Value, balance: Balance, panel: Offset, row: int) -> list[Value]:
    """What is kept of a balanced panel's features: in row 0 corrections, in 1 inverse scales."""
    width, line = 4 * balance.width, 4 * b.target.lanes
    rows = b.at(packed, b.add(balance.offset, b.multiply(panel, 2 * width)))
    return [b.load(b.at(rows, row * width + at)) for at in range(0, width, line)]


def emit_uncorrected(
    b: Builder, corrections: Sequence[Value], pixels: Sequence[Value]
) -> list[Value]:
    """What the sums begin with: what their pairs add beyond the terms, taken off.

    `corrections` are the features', `pixels` the addresses of the pixels' as `emit_balanced` gave.
    """
    values = [b.broadcast(b.load_scalar(place)) for place in pixels]
    return [b.emit(f"fsub {b.vector} {one}, {value}") for value in values for one in corrections]


def emit_unscaled(
    b: Builder, scales: Sequence[Value], pixels: Sequence[Value], sums: Sequence[Value]
) -> list[Value]:
    """The sums times the inverse scales of their features, and of their pixels at `pixels`."""
    result = list[Value]()
    for place in pixels:
        value = b.broadcast(b.load_scalar(place))
        for scale in scales:
            both = b.emit(f"fmul {b.vector} {value}, {scale}")
            result.append(b.emit(f"fmul {b.vector} {sums[len(result)]}, {both}"))
    return result
