"""The schedules there are, and which of them a statement gets."""

from collections.abc import Mapping

from striate.compiler.schedules import (
    direct,
    generic,
    grouped,
    im2col,
    planes,
    staged,
    window,
    winograd,
)
from striate.compiler.schedules.base import Schedule
from striate.compiler.schedules.contraction import match_contraction
from striate.compiler.target import Target
from striate.network.graph import Computed, Known

# To add a schedule is to add its module to this tuple.
SCHEDULES: tuple[Schedule, ...] = (
    winograd,
    direct,
    grouped,
    window,
    staged,
    planes,
    im2col,
    generic,
)
# Schedules by the name of the algorithm that a user may ask for.
ALGORITHMS: Mapping[str, tuple[Schedule, ...]] = {
    "auto": SCHEDULES,
    "direct": tuple(schedule for schedule in SCHEDULES if schedule is not winograd),
}


def choose(node: Computed, target: Target, algorithm: str = "auto") -> Schedule:
    """The schedule with the smallest estimated time among those that `algorithm` allows.

    "direct" forbids what reorders the sums of an equation (Winograd).
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"no algorithm {algorithm!r}; expected {' or '.join(ALGORITHMS)}")
    found: list[tuple[float, int, Schedule]] = []
    for k, schedule in enumerate(ALGORITHMS[algorithm]):
        seconds = schedule.seconds(node.statement, target)
        if seconds is not None and (schedule is not winograd or _weights_known(node)):
            found.append((seconds, k, schedule))
    return min(found, key=lambda one: one[:2])[2]


def _weights_known(node: Computed) -> bool:
    """Whether the weights can be transformed before the run, once and for all."""
    contraction = match_contraction(node.statement)
    operands = dict(node.operands)
    return contraction is not None and isinstance(operands[contraction.weight.tensor], Known)
