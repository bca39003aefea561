"""Elementary functions as vector code, so that kernels call no library."""

from striate.compiler.builder import Builder, Value


def exp(b: Builder, x: Value) -> Value:
    """e ** x: `2**k * p(r)` with x = k ln 2 + r, |r| <= ln 2 / 2, p of degree 7."""
    v, lanes = b.vector, b.target.lanes
    bounded = _clamp(b, x, -104.0, 89.0)
    scaled = b.emit(f"fmul {v} {bounded}, {b.splat(1.4426950408889634)}")
    k = b.call(v, f"llvm.rint.v{lanes}f32", f"{v} {scaled}")
    r = b.fma(k, b.splat(-0.693145751953125), bounded)
    r = b.fma(k, b.splat(-1.42860682030941723e-6), r)
    value = b.splat(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        value = b.fma(value, r, b.splat(coefficient))
    # 2**k in two halves: k reaches below the smallest exponent and one past the largest.
    # A NaN has no integer: the saturating conversion makes that harmless, and r carries it on.
    convert = f"llvm.fptosi.sat.v{lanes}i32.v{lanes}f32"
    integer = b.call(f"<{lanes} x i32>", convert, f"{v} {k}")
    half = b.emit(f"ashr <{lanes} x i32> {integer}, splat (i32 1)")
    rest = b.emit(f"sub <{lanes} x i32> {integer}, {half}")
    for exponent in (half, rest):
        value = b.emit(f"fmul {v} {value}, {_power_of_two(b, exponent)}")
    return value


def log(b: Builder, x: Value) -> Value:
    """ln x: exponent * ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), sqrt(1/2) <= m < sqrt 2."""
    v, lanes = b.vector, b.target.lanes
    integers = f"<{lanes} x i32>"
    tiny = b.emit(f"fcmp olt {v} {x}, {b.splat(1.17549435e-38)}")
    lifted = b.emit(f"fmul {v} {x}, {b.splat(2.0**23)}")
    normal = b.emit(f"select <{lanes} x i1> {tiny}, {v} {lifted}, {v} {x}")
    lift = b.emit(f"select <{lanes} x i1> {tiny}, {v} {b.splat(-23.0)}, {v} {b.zero()}")
    bits = b.emit(f"bitcast {v} {normal} to {integers}")
    # Subtracting the bits of sqrt(1/2) makes the exponent field change at sqrt 2, not at 2.
    shifted = b.emit(f"sub {integers} {bits}, splat (i32 {0x3F3504F3})")
    exponent = b.emit(f"ashr {integers} {shifted}, splat (i32 23)")
    whole = b.emit(f"shl {integers} {exponent}, splat (i32 23)")
    mantissa_bits = b.emit(f"sub {integers} {bits}, {whole}")
    m = b.emit(f"bitcast {integers} {mantissa_bits} to {v}")
    k = b.emit(f"sitofp {integers} {exponent} to {v}")
    k = b.emit(f"fadd {v} {k}, {lift}")
    f = b.emit(f"fadd {v} {m}, {b.splat(-1.0)}")
    denominator = b.emit(f"fadd {v} {f}, {b.splat(2.0)}")
    s = b.emit(f"fdiv {v} {f}, {denominator}")
    z = b.emit(f"fmul {v} {s}, {s}")
    series = b.splat(2 / 11)
    for odd in (9, 7, 5, 3):
        series = b.fma(series, z, b.splat(2 / odd))
    # 2 s = f - s f, exactly enough to keep the leading term free of the division's rounding.
    tail = b.emit(f"fmul {v} {series}, {z}")
    tail = b.emit(f"fsub {v} {tail}, {f}")
    low = b.fma(s, tail, b.emit(f"fmul {v} {k}, {b.splat(1.42860682030941723e-6)}"))
    value = b.fma(k, b.splat(0.693145751953125), b.emit(f"fadd {v} {f}, {low}"))
    return _log_edges(b, x, value)


def _log_edges(b: Builder, x: Value, value: Value) -> Value:
    """ln 0 = -inf, ln inf = inf, ln of a negative number or NaN = NaN."""
    v, lanes = b.vector, b.target.lanes
    cases = (
        (f"fcmp oeq {v} {x}, {b.zero()}", b.splat(float("-inf"))),
        (f"fcmp oeq {v} {x}, {b.splat(float('inf'))}", b.splat(float("inf"))),
        (f"fcmp ult {v} {x}, {b.zero()}", b.splat(float("nan"))),
    )
    for condition, special in cases:
        truth = b.emit(condition)
        value = b.emit(f"select <{lanes} x i1> {truth}, {v} {special}, {v} {value}")
    return value


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + t) for x >= 0 and t / (1 + t) below, with t = e ** -|x|, which can't overflow."""
    v, lanes = b.vector, b.target.lanes
    size = b.call(v, f"llvm.fabs.v{lanes}f32", f"{v} {x}")
    power = exp(b, b.emit(f"fneg {v} {size}"))
    denominator = b.emit(f"fadd {v} {power}, {b.splat(1.0)}")
    negative = b.emit(f"fcmp olt {v} {x}, {b.zero()}")
    numerator = b.emit(f"select <{lanes} x i1> {negative}, {v} {power}, {v} {b.splat(1.0)}")
    return b.emit(f"fdiv {v} {numerator}, {denominator}")


def tanh(b: Builder, x: Value) -> Value:
    """An odd polynomial below 0.625, sign(x) (1 - 2 / (e ** 2|x| + 1)) above."""
    v, lanes = b.vector, b.target.lanes
    size = b.call(v, f"llvm.fabs.v{lanes}f32", f"{v} {x}")
    doubled = b.emit(f"fadd {v} {size}, {size}")
    grown = b.emit(f"fadd {v} {exp(b, doubled)}, {b.splat(1.0)}")
    fraction = b.emit(f"fdiv {v} {b.splat(2.0)}, {grown}")
    large = b.emit(f"fsub {v} {b.splat(1.0)}, {fraction}")
    large = b.call(v, f"llvm.copysign.v{lanes}f32", f"{v} {large}", f"{v} {x}")
    z = b.emit(f"fmul {v} {x}, {x}")
    series = b.splat(-5.70498872745e-3)
    for c in (2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
        series = b.fma(series, z, b.splat(c))
    cubed = b.emit(f"fmul {v} {z}, {x}")
    small = b.fma(series, cubed, x)
    near = b.emit(f"fcmp olt {v} {size}, {b.splat(0.625)}")
    return b.emit(f"select <{lanes} x i1> {near}, {v} {small}, {v} {large}")


def _clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    """x within [low, high]; a NaN stays one."""
    v, lanes = b.vector, b.target.lanes
    for predicate, bound in (("olt", b.splat(low)), ("ogt", b.splat(high))):
        truth = b.emit(f"fcmp {predicate} {v} {x}, {bound}")
        x = b.emit(f"select <{lanes} x i1> {truth}, {v} {bound}, {v} {x}")
    return x


def _power_of_two(b: Builder, exponent: Value) -> Value:
    """2 ** exponent for |exponent| <= 126, by building the bits."""
    integers = f"<{b.target.lanes} x i32>"
    biased = b.emit(f"add {integers} {exponent}, splat (i32 127)")
    bits = b.emit(f"shl {integers} {biased}, splat (i32 23)")
    return b.emit(f"bitcast {integers} {bits} to {b.vector}")
