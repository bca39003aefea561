"""Engines in turns on one case: their times, their answers beside ours, who is ahead."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from striate.layers.arguments import Array
from striate.race.cases import Case
from striate.race.engines import OURS, Engine, Runner
from striate.race.files import Files

# Of the largest logit: what Winograd's algorithm in float32 needs, and bfloat16 does not keep.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Pace:
    """How an engine's turn goes: about `seconds` of calls, then `rest` seconds of idling.

    A peer's threads may spin on after its last call (ONNX Runtime's do for some 50 ms): the rest
    keeps that out of the next engine's turn.
    """

    rounds: int = 7
    seconds: float = 0.2
    rest: float = 0.1


@dataclass(slots=True)
class Lane:
    """One engine in a heat: times in seconds, `rounds` one median for each turn.

    `difference` is the largest from our logits, over the largest of ours.
    """

    engine: str
    rounds: list[float] = field(default_factory=list)
    least: float = math.inf
    difference: float = math.nan
    problem: str = ""

    @property
    def seconds(self) -> float:
        """The median over rounds; nan if the engine did not run."""
        return statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def agrees(self) -> bool:
        """Whether the engine's logits are ours (nan is something else)."""
        return self.difference <= TOLERANCE

    @property
    def counts(self) -> bool:
        """Whether the engine ran and gave our answer."""
        return bool(self.rounds) and self.agrees


@dataclass(frozen=True, slots=True)
class Heat:
    """All engines on one case, ours first."""

    case: Case
    lanes: tuple[Lane, ...]

    @property
    def ours(self) -> Lane:
        return next(lane for lane in self.lanes if lane.engine == OURS)

    @property
    def best_peer(self) -> Lane | None:
        """The fastest peer that agrees with us."""
        peers = [lane for lane in self.lanes if lane.engine != OURS and lane.counts]
        return min(peers, key=lambda lane: lane.seconds, default=None)

    @property
    def ratio(self) -> float:
        """The best peer's time over ours; nan unless both ran."""
        peer = self.best_peer
        return peer.seconds / self.ours.seconds if peer else math.nan

    @property
    def least_ratio(self) -> float:
        """The least single call of all peers over our least: what a quiet moment would show."""
        peers = [lane.least for lane in self.lanes if lane.engine != OURS and lane.counts]
        return min(peers) / self.ours.least if peers and self.ours.rounds else math.nan


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of the values that are numbers; nan if none is."""
    known = [value for value in values if not math.isnan(value)]
    return math.exp(statistics.fmean(map(math.log, known))) if known else math.nan


def relative_difference(given: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute expected value. Raises ValueError."""
    if given.shape != expected.shape:
        raise ValueError(f"logits have shape {given.shape}, ours {expected.shape}")
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def run_heat(
    case: Case,
    engines: Mapping[str, Engine],
    files: Files,
    pace: Pace,
    advance: Callable[[str], None] = lambda engine: None,
) -> Heat:
    """Load `case` on every engine, compare the answers with ours, and let the engines take turns.

    An engine that fails doesn't end the race of the others: its lane says why. `advance` is called
    after every turn.
    """
    lanes = tuple(Lane(name) for name in sorted(engines, key=lambda name: name != OURS))
    runners: dict[str, Runner] = {}
    reference: Array | None = None
    for lane in lanes:
        try:
            engine = engines[lane.engine]
            engine.prepare(files, case)
            run = engine.load(files, case, None)
            logits = np.array(run())
            reference = logits if lane.engine == OURS else reference
            if reference is None:
                raise ValueError("there is no answer of ours to compare with")
            lane.difference = relative_difference(logits, reference)
        except Exception as error:
            lane.problem = f"{type(error).__name__}: {error}"
            continue
        runners[lane.engine] = run
        time.sleep(pace.rest)
    for lane in _turns([lane for lane in lanes if lane.engine in runners], pace.rounds):
        take_turn(lane, runners[lane.engine], pace)
        advance(lane.engine)
    return Heat(case, lanes)


def _turns(lanes: Sequence[Lane], rounds: int) -> Iterator[Lane]:
    """Every lane once a round, another one first each time."""
    for number in range(rounds if lanes else 0):
        shift = number % len(lanes)
        yield from (*lanes[shift:], *lanes[:shift])


def take_turn(lane: Lane, run: Runner, pace: Pace) -> None:
    """A few calls of `run`, then a rest."""
    run()  # brings weights and buffers back into the caches that the last engine filled
    times: list[float] = []
    until = time.perf_counter() + pace.seconds
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 50):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    lane.rounds.append(statistics.median(times))
    lane.least = min(lane.least, *times)
    time.sleep(pace.rest)
