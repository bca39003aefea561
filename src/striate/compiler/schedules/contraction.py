"""Recognise a contraction: a sum of products of data and weights, with an element-wise epilogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from striate.compiler.schedules.base import window_halo
from striate.notation.ir import (
    Affine,
    Apply,
    Equation,
    Expression,
    Read,
    Reduce,
    Statement,
    reads,
    walk,
)


@dataclass(frozen=True, slots=True)
class Contraction:
    """`output[rows..., N*group + feature] = epilogue(sum[taps..., channel](weight * data))`.

    `rows` are output indices, outermost first. `feature` is the index that only the weights and
    the output share, None in a depthwise contraction; `group` one that data, weights and output
    share along the features; `channel` the reduction index innermost in the data. The features are
    the weights' axis `weight_axis`.
    """

    reduction: Reduce
    data: Read
    weight: Read
    rows: tuple[str, ...]
    group: str | None
    feature: str | None
    taps: tuple[str, ...]
    channel: str | None
    weight_axis: int

    @property
    def order(self) -> tuple[str, ...]:
        """The indices that are summed over, the channel innermost."""
        return (*self.taps, *([self.channel] if self.channel else []))

    def weight_at(self, features: Affine) -> Read:
        """The read of the weights, at other features."""
        access = list(self.weight.access)
        access[self.weight_axis] = features
        return Read(self.weight.tensor, tuple(access))


@lru_cache(maxsize=4096)
def match_contraction(statement: Statement) -> Contraction | None:
    """The statement's roles as a contraction, or None if it isn't one."""
    expression = statement.equation.expression
    # One value may be used more than once: t * sigmoid(t).
    reductions = {node for node in walk(expression) if isinstance(node, Reduce)}
    if len(reductions) != 1:
        return None
    (reduction,) = reductions
    if reduction.kind != "sum":
        return None
    body = reduction.body
    if not (isinstance(body, Apply) and body.function == "multiply"):
        return None
    left, right = body.arguments
    if not (isinstance(left, Read) and isinstance(right, Read)):
        return None
    for weight, data in ((left, right), (right, left)):
        found = _roles(statement, reduction, weight, data)
        # Weights are packed for the reduction: nothing else can read them.
        alone = {read for read in reads(expression) if read.tensor == weight.tensor} == {weight}
        if found is not None and alone:
            return found
    return None


def _roles(statement: Statement, reduction: Reduce, weight: Read, data: Read) -> Contraction | None:
    if not (statement.equation.output.access and data.access and weight.access):
        return None
    *outer, last = statement.equation.output.access
    rows = [affine.index for affine in outer]
    if not last.terms or last.divisor != 1 or last.offset or None in rows:
        return None
    if any(affine.divisor != 1 for affine in weight.access):
        return None
    in_data = {index for affine in data.access for index, _ in affine.terms}
    in_weight = {index for affine in weight.access for index, _ in affine.terms}
    if in_weight & set(rows) or weight.access.count(last) != 1:
        return None
    extents = dict(statement.extents)
    features = [index for index, _ in last.terms if index not in in_data]
    groups = [index for index, _ in last.terms if index in in_data]
    if len(features) > 1 or len(groups) > 1 or not set(reduction.indices) <= in_weight:
        return None
    feature = features[0] if features else None
    if feature is not None and last.coefficient(feature) != 1:
        return None
    if groups and feature and last.coefficient(groups[0]) != extents[feature]:
        return None
    inner = [i for i, step in data.access[-1].terms if i in reduction.indices and step == 1]
    channel = inner[-1] if inner else None
    taps = tuple(index for index in reduction.indices if index != channel)
    if not set(taps) <= in_data or data.tensor == weight.tensor:
        return None
    group = groups[0] if groups else None
    named = tuple(index for index in rows if index is not None)
    axis = weight.access.index(last)
    return Contraction(reduction, data, weight, named, group, feature, taps, channel, axis)


def fits_layout(statement: Statement, contraction: Contraction) -> bool:
    """Whether every read outside a box is one that a halo of zeros can serve."""
    if window_halo(statement, contraction.weight) != (0, 0, 0, 0):
        return False
    return window_halo(statement, contraction.data) is not None


def packing(
    statement: Statement, weight: Read, source: Expression, sizes: Mapping[str, int]
) -> Statement:
    """`packed[indices...] = source`, where `sizes` holds the indices of the weights' new order."""
    output = "packed" if weight.tensor != "packed" else "panels"
    access = tuple(Affine(((index, 1),)) for index in sizes)
    extents = tuple(sizes.items())
    return Statement(
        Equation(Read(output, access), source, extents),
        ((weight.tensor, dict(statement.shapes)[weight.tensor]),),
        extents,
        tuple(sizes.values()),
    )
