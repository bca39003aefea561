"""How near the phases of a program come to what this CPU can do: time, work, and the roofline.

A phase can take no less time than its multiply-adds and its bytes need at the measured rates; the
longer of the two is its roofline. Bytes that a cache still holds come faster than from memory, so
small phases may take less.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.compiler.program import Program
from striate.network.graph import Array
from striate.runtime.executable import Executable
from striate.runtime.peak import fma_peak, memory_bandwidth


@dataclass(frozen=True, slots=True)
class Limits:
    """What the CPU does at most: flop/s and bytes/s of all threads together."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Timed:
    """A phase: its labels, its schedules, the time it took (s), and the work in it."""

    label: str
    schedule: str
    seconds: float
    multiply_adds: int
    bytes_moved: int

    @property
    def flops(self) -> float:
        """Operations per second; a multiply-add counts as two."""
        return 2 * self.multiply_adds / self.seconds if self.seconds else 0.0

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.bytes_moved / self.seconds if self.seconds else 0.0

    def bound(self, limits: Limits) -> str:
        """What takes longer at the limits: "compute" or "memory"."""
        compute = 2 * self.multiply_adds / limits.flops
        return "compute" if compute > self.bytes_moved / limits.bandwidth else "memory"

    def least_seconds(self, limits: Limits) -> float:
        """The time that the multiply-adds or the bytes take at the limits, whichever is longer."""
        return max(2 * self.multiply_adds / limits.flops, self.bytes_moved / limits.bandwidth)


def against_limits(
    executable: Executable, *arrays: Array, rounds: int = 15
) -> tuple[list[Timed], Limits]:
    """The phases of a network on `arrays`, and what the CPU does at most meanwhile.

    In every round the memory, the peak and the network have a turn, and all are the medians of the
    rounds: a core that runs slower for a while, or a memory that serves others, too, is slower for
    all of them.
    """
    bandwidth = memory_bandwidth(executable.threads)
    times, peaks, rates = [], [], []
    for _ in range(rounds):
        rates.append(bandwidth())
        peaks.append(fma_peak(executable.threads, seconds=0.03) * 1e9)
        times.append(executable.profile(*arrays, repeat=3))
    seconds = [statistics.median(phase) for phase in zip(*times, strict=True)]
    phases = timed_phases(executable.program, seconds)
    return phases, Limits(statistics.median(peaks), statistics.median(rates))


def timed_phases(program: Program, seconds: Sequence[float]) -> list[Timed]:
    """The phases of `program` in the order they run, with their times `seconds`.

    What is repeated for every part of a batch is one phase.
    """
    if len(seconds) != len(program.phases):
        raise ValueError(f"{len(seconds)} times for {len(program.phases)} phases")
    found = []
    for numbers in program.repetitions():
        phase = program.phases[numbers[0]]
        taken = sum(seconds[number] for number in numbers)
        # Borders and packing, in brackets, are named only where they have a phase to themselves.
        named = [step for step in phase if step.label and step.label[0] != "("] or phase
        labels = dict.fromkeys(step.label or "(copy)" for step in named)
        schedules = dict.fromkeys(program.kernels[step.kernel].schedule for step in named)
        work = len(numbers) * sum(step.multiply_adds for step in phase)
        moved = len(numbers) * sum(step.bytes_moved for step in phase)
        found.append(Timed(" | ".join(labels), " | ".join(schedules), taken, work, moved))
    return found


def timed_steps(program: Program, phases: Sequence[Timed], limits: Limits) -> dict[str, Timed]:
    """What runs in `program` by its label, from its `phases` as `timed_phases` gives them.

    Steps that run side by side share their phase's time as their least times say.
    """
    found: dict[str, Timed] = {}
    for numbers, phase in zip(program.repetitions(), phases, strict=True):
        alone = [
            Timed(
                step.label,
                program.kernels[step.kernel].schedule,
                0.0,
                len(numbers) * step.multiply_adds,
                len(numbers) * step.bytes_moved,
            )
            for step in program.phases[numbers[0]]
        ]
        least = [one.least_seconds(limits) for one in alone]
        whole = sum(least)
        for one, share in zip(alone, least, strict=True):
            part = share / whole if whole else 1 / len(alone)
            parts = [replace(one, seconds=phase.seconds * part)]
            if one.label in found:
                parts.append(found[one.label])
            found[one.label] = replace(together(parts), label=one.label, schedule=one.schedule)
    return found


def together(phases: Sequence[Timed]) -> Timed:
    """All phases as one."""
    return Timed(
        "all phases",
        "",
        sum(phase.seconds for phase in phases),
        sum(phase.multiply_adds for phase in phases),
        sum(phase.bytes_moved for phase in phases),
    )


def attained(phases: Sequence[Timed], limits: Limits) -> float:
    """The least time that `phases` can take, one after another, over the time they took."""
    taken = sum(phase.seconds for phase in phases)
    return sum(phase.least_seconds(limits) for phase in phases) / taken if taken else 0.0
