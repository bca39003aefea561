"""Measure the schedules that fit each statement of a graph, in place, and remember the best.

A schedule is measured where it will run: the whole graph is compiled with that schedule wherever it
fits, so that caches, borders and neighbours are those of the network.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from striate.compiler import compile_graph
from striate.compiler.choose import ALGORITHMS, Trial, trial
from striate.compiler.program import Program
from striate.compiler.tuned import tuned
from striate.network.graph import Array, Graph
from striate.runtime.executable import Executable

# A choice must be faster than the estimates' by this to be remembered: less is noise.
WORTH = 0.97
_ROUNDS, _REPEAT = 4, 7


@dataclass(frozen=True, slots=True)
class Measured:
    """One statement: the seconds it takes in each schedule tried, all its kernel's uses together.

    `label` is that of the first node of it, `estimated` the schedule with the least estimate.
    """

    label: str
    key: str
    estimated: str
    seconds: Mapping[str, float]

    @property
    def best(self) -> str:
        """The schedule to take: the fastest, or the estimated one if that is as good."""
        fastest = min(self.seconds, key=lambda name: self.seconds[name])
        worth = self.seconds[fastest] < WORTH * self.seconds[self.estimated]
        return fastest if worth else self.estimated

    @property
    def loss(self) -> float:
        """How much longer the estimated schedule takes than the best, as a share of the latter."""
        return self.seconds[self.estimated] / self.seconds[self.best] - 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, and seconds of the whole graph by the estimates and by what was learnt."""

    statements: tuple[Measured, ...]
    before: float
    after: float


@dataclass(slots=True)
class _Variant:
    """The graph compiled in one trial; `steps` holds the least median of each step."""

    trial: Trial
    program: Program
    executable: Executable
    steps: list[float] = field(default_factory=list)

    def measure(self, images: Sequence[Array]) -> None:
        seconds = self.executable.profile(*images, repeat=_REPEAT)
        known = self.steps or seconds
        self.steps = [min(pair) for pair in zip(known, seconds, strict=True)]

    def seconds(self, label: str) -> float | None:
        """The time of all uses of the kernel that computes `label`; None if there is none."""
        steps = [phase[0] for phase in self.program.phases]
        kernel = next((step.kernel for step in steps if step.label == label), None)
        uses = [
            taken for step, taken in zip(steps, self.steps, strict=True) if step.kernel == kernel
        ]
        return sum(uses) if uses and sum(uses) else None


def tune(
    graph: Graph,
    threads: int | None = None,
    algorithm: str = "auto",
    *,
    keep: bool = True,
    advance: Callable[[str], None] = lambda doing: None,
) -> Tuning:
    """Measure, and with `keep` remember what makes the whole graph faster on this machine."""
    images = [
        np.random.default_rng(0).standard_normal(given.shape, np.float32) for given in graph.inputs
    ]
    variants = _variants(graph, threads, algorithm, advance)
    for number in range(_ROUNDS):
        for variant in variants:
            advance(f"round {number + 1} of {_ROUNDS}: {variant.trial.schedule or 'estimates'}")
            variant.measure(images)
    found = _measured(variants)
    with trial(None):
        plain = Executable(compile_graph(graph, algorithm=algorithm), threads)
    before = _whole([plain], images)[0]
    learnt: dict[str, str | None] = {m.key: m.best for m in found if m.best != m.estimated}
    if not (keep and learnt):
        return Tuning(tuple(found), before, before)
    tuned().remember(learnt)
    advance("the whole network, before and after")
    best = Executable(compile_graph(graph, algorithm=algorithm), threads)
    before, after = _whole([plain, best], images)
    if after > before:
        tuned().remember(dict.fromkeys(learnt))
    return Tuning(tuple(found), before, after)


def _variants(
    graph: Graph, threads: int | None, algorithm: str, advance: Callable[[str], None]
) -> list[_Variant]:
    """The graph by the estimates, then with each schedule that is another choice somewhere."""
    variants: list[_Variant] = []
    for name in (None, *(schedule.name for schedule in ALGORITHMS[algorithm])):
        advance(f"compiling: {name or 'estimates'}")
        with trial(name) as made:
            program = _apart(compile_graph(graph, algorithm=algorithm))
        if not variants or made.chosen != variants[0].trial.chosen:
            variants.append(_Variant(made, program, Executable(program, threads)))
    return variants


def _apart(program: Program) -> Program:
    """The program with every step in a phase of its own, so that each is timed alone."""
    return replace(program, phases=tuple((step,) for phase in program.phases for step in phase))


def _measured(variants: Sequence[_Variant]) -> list[Measured]:
    """The statements that more than one schedule was measured for."""
    estimates = variants[0]
    found = []
    for label, (key, estimated) in estimates.trial.chosen.items():
        seconds: dict[str, float] = {}
        for variant in variants:
            asked, name = variant.trial.chosen.get(label, ("", ""))
            taken = variant.seconds(label)
            if asked == key and taken is not None:
                seconds[name] = min(taken, seconds.get(name, taken))
        if len(seconds) > 1 and estimated in seconds:
            found.append(Measured(label, key, estimated, seconds))
    return found


def _whole(executables: Sequence[Executable], images: Sequence[Array]) -> list[float]:
    """The median seconds of a call of each, in turns."""
    times: list[list[float]] = [[] for _ in executables]
    for _ in range(30):
        for executable, taken in zip(executables, times, strict=True):
            executable(*images)
            start = time.perf_counter()
            executable(*images)
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]
