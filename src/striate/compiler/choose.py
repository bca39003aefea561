"""The schedules there are, and which of them a statement gets."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import ClassVar

from striate.compiler.schedules import (
    direct,
    generic,
    grouped,
    im2col,
    inner_product,
    planes,
    staged,
    window,
    winograd,
)
from striate.compiler.schedules.base import FastSchedule, Schedule
from striate.compiler.schedules.pooled import take_apart
from striate.compiler.target import Target
from striate.compiler.tuned import choice_key, tuned
from striate.network.graph import Computed, Known

# To add a schedule is to add its module to this tuple.
SCHEDULES: tuple[Schedule, ...] = (
    winograd,
    direct,
    grouped,
    window,
    staged,
    inner_product,
    planes,
    im2col,
    generic,
)
# Winograd's algorithms, by name: they transform weights before the run, and change results.
_FAST: Mapping[str, FastSchedule] = {one.name: one for one in (winograd, inner_product)}
_PLAIN = tuple(schedule for schedule in SCHEDULES if schedule.name not in _FAST)
# Schedules by the name of the algorithm that a user may ask for. With "exact" no transform of the
# graph reorders a sum either.
ALGORITHMS: Mapping[str, tuple[Schedule, ...]] = {
    "auto": SCHEDULES,
    "direct": _PLAIN,
    "exact": _PLAIN,
}


def choose(node: Computed, target: Target, algorithm: str = "auto") -> Schedule:
    """The schedule that was measured to be the fastest here, or that is estimated to be.

    "direct" and "exact" forbid Winograd's algorithms.
    """
    found = candidates(node, target, algorithm)
    name = _wanted(node, target, algorithm, found)
    return next((schedule for schedule, _ in found if schedule.name == name), found[0][0])


def pools(node: Computed, target: Target, algorithm: str = "auto") -> bool:
    """Whether the schedule of a layer takes the pooling of its outputs as well."""
    pooled = take_apart(node.statement)
    if pooled.reduction is None:
        return False
    layer = replace(node, statement=pooled.layer)
    alone, together = (candidates(one, target, algorithm)[0][0] for one in (layer, node))
    return alone is together and alone is not generic


def candidates(
    node: Computed, target: Target, algorithm: str = "auto"
) -> list[tuple[Schedule, float]]:
    """The schedules that fit and that `algorithm` allows with their estimates (s), least first."""
    if algorithm not in ALGORITHMS:
        *names, last = ALGORITHMS
        raise ValueError(f"no algorithm {algorithm!r}; expected {', '.join(names)} or {last}")
    found = []
    for schedule in ALGORITHMS[algorithm]:
        seconds = schedule.seconds(node.statement, target)
        if seconds is not None and _weights_known(node, schedule, target):
            found.append((schedule, seconds))
    return sorted(found, key=lambda one: one[1])


@dataclass(slots=True)
class Trial:
    """A compilation that takes `schedule` wherever it fits (None: the least estimate), to measure.

    `chosen` collects, by the label of a node, its statement's key and the schedule it got. What is
    estimated to be slower by `LARGEST` is not worth the time.
    """

    LARGEST: ClassVar[float] = 10.0

    schedule: str | None
    chosen: dict[str, tuple[str, str]] = field(default_factory=dict)

    def choose(self, label: str, key: str, found: Sequence[tuple[Schedule, float]]) -> str:
        """The name of the schedule to take; `found` are those that fit."""
        best, least = found[0]
        worth = [s.name for s, seconds in found if seconds <= max(self.LARGEST * least, 1e-3)]
        name = self.schedule if self.schedule in worth else best.name
        assert name is not None
        self.chosen.setdefault(label, (key, name))
        return name


@contextmanager
def trial(schedule: str | None) -> Iterator[Trial]:
    """Compile for a `Trial` in this context; what is remembered is not asked."""
    started = Trial(schedule)
    token = _trial.set(started)
    try:
        yield started
    finally:
        _trial.reset(token)


_trial: ContextVar[Trial | None] = ContextVar("trial", default=None)


def _wanted(
    node: Computed, target: Target, algorithm: str, found: Sequence[tuple[Schedule, float]]
) -> str | None:
    """The name of the schedule that a trial asks for, or that is remembered, if any."""
    started = _trial.get()
    if started is None and not tuned().choices():
        return None
    known = tuple(isinstance(operand, Known) for _, operand in node.operands)
    key = choice_key(node.statement, known, target, algorithm)
    if started is not None:
        return started.choose(node.label, key, found)
    return tuned().choices().get(key)


def _weights_known(node: Computed, schedule: Schedule, target: Target) -> bool:
    """Whether the weights that a fast algorithm transforms, if any, are known before the run."""
    fast = _FAST.get(schedule.name)
    if fast is None:
        return True
    return isinstance(dict(node.operands)[fast.transformed(node.statement, target)], Known)
