"""`striate bench`: how fast a network runs, beside what this CPU can do at most."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    Algorithm,
    AlgorithmOption,
    BatchOption,
    InputOption,
    JsonOption,
    ModelArgument,
    ThreadsOption,
)
from striate.cli.output import Column, count, duration, print_json, print_table, progress, shape

if TYPE_CHECKING:
    from striate.network.graph import Array
    from striate.runtime import Executable
    from striate.runtime.roofline import Limits, Timed

# Enough runs for a median that holds, in little enough time to wait for.
_LEAST_RUNS, _MOST_RUNS, _SECONDS = 10, 1000, 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured: seconds of each of many runs, and the phases where they were asked for.

    The bandwidth in `limits` is infinite where phases were not asked for.
    """

    executable: "Executable"
    runs: tuple[float, ...]
    limits: "Limits"
    phases: "tuple[Timed, ...]"

    @property
    def seconds(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def multiply_adds(self) -> int:
        """Those of one run."""
        steps = (step for phase in self.executable.program.phases for step in phase)
        return sum(step.multiply_adds for step in steps)

    @property
    def flops(self) -> float:
        """Operations per second; a multiply-add counts as two."""
        return 2 * self.multiply_adds / self.seconds

    def sorted(self) -> "Report":
        """The report with the longest phases first."""
        return replace(self, phases=tuple(sorted(self.phases, key=lambda phase: -phase.seconds)))

    def record(self) -> dict[str, object]:
        """The report for programs."""
        return {
            "threads": self.executable.threads,
            "runs": len(self.runs),
            "seconds": self.seconds,
            "least_seconds": min(self.runs),
            "multiply_adds": self.multiply_adds,
            "gflops": self.flops / 1e9,
            "peak_gflops": self.limits.flops / 1e9,
            "peak_share": self.flops / self.limits.flops,
            "bandwidth_gbs": self.limits.bandwidth / 1e9 if self.phases else None,
            "arena_bytes": self.executable.arena_bytes,
            "layers": [layer_record(phase, self.limits) for phase in self.phases],
        }


def bench(
    model: ModelArgument,
    layers: Annotated[bool, typer.Option("--layers", help="Time each layer as well.")] = False,
    sort: Annotated[bool, typer.Option("--sort", help="Longest layers first.")] = False,
    threads: ThreadsOption = None,
    batch: BatchOption = 1,
    json: JsonOption = False,
    input: InputOption = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Measure a network: latency, GFLOP/s, and the share of this CPU's measured peak.

    The latency is the median of many runs; the peak is measured beside it, with as many threads.
    """
    from striate.cli.networks import network

    module, sizes = network(model, input, batch)
    with progress(None) as advance:
        advance(f"{model}: compiling", 0)
        executable = module.compile(sizes, threads=threads, algorithm=algorithm)
        advance(f"{model}: measuring", 0)
        report = measure(executable, layers)
    if sort:
        report = report.sorted()
    if json:
        head = {"model": model, "input": list(sizes), "algorithm": str(algorithm)}
        print_json({**head, **report.record()})
        return
    if layers:
        print_layers(report.phases, report.limits)
        print()
    threads, limits = report.executable.threads, report.limits
    peak = f"{report.flops / limits.flops:.0%} of the measured peak of {limits.flops / 1e9:.1f}"
    print(
        f"{model} on {shape(sizes)}, {threads} thread{'s' * (threads > 1)}: "
        f"{duration(report.seconds)} (median of {len(report.runs)} runs, least "
        f"{duration(min(report.runs))})\n"
        f"{count(report.multiply_adds)} multiply-adds, {report.flops / 1e9:.1f} GFLOP/s, "
        f"{peak} GFLOP/s"
    )
    if layers:
        print(f"the memory's measured bandwidth is {limits.bandwidth / 1e9:.1f} GB/s")
    print(f"{report.executable.arena_bytes / 1e6:.1f} MB of memory for activations")


def measure(executable: "Executable", layers: bool) -> Report:
    """Run the network again and again, and measure what this CPU can do; time phases if asked."""
    import numpy as np

    from striate.runtime.peak import fma_peak
    from striate.runtime.roofline import Limits, against_limits

    _, sizes = executable.program.inputs[0]
    image = np.random.default_rng(0).standard_normal(sizes, np.float32)
    times = tuple(run_times(executable, image))
    if not layers:
        limits = Limits(fma_peak(executable.threads) * 1e9, math.inf)
        return Report(executable, times, limits, ())
    phases, limits = against_limits(executable, image)
    return Report(executable, times, limits, tuple(phases))


def run_times(executable: "Executable", image: "Array") -> list[float]:
    """Seconds of each run, after some that warm the caches."""
    start = time.perf_counter()
    while time.perf_counter() - start < 0.2:
        executable(image)
    times: list[float] = []
    while len(times) < _LEAST_RUNS or (sum(times) < _SECONDS and len(times) < _MOST_RUNS):
        start = time.perf_counter()
        executable(image)
        times.append(time.perf_counter() - start)
    return times


def layer_record(phase: "Timed", limits: "Limits") -> dict[str, object]:
    """A phase for programs; `roofline` is the least time that the limits allow over its time."""
    from striate.runtime.roofline import attained

    return {
        "layer": phase.label,
        "schedule": phase.schedule,
        "seconds": phase.seconds,
        "multiply_adds": phase.multiply_adds,
        "bytes_moved": phase.bytes_moved,
        "gflops": phase.flops / 1e9,
        "peak_share": phase.flops / limits.flops,
        "gbs": phase.bandwidth / 1e9,
        "bandwidth_share": phase.bandwidth / limits.bandwidth,
        "bound": phase.bound(limits),
        "roofline": attained([phase], limits),
    }


def print_layers(phases: "Sequence[Timed]", limits: "Limits") -> None:
    """The table of phases; the last row is all of them."""
    from striate.runtime.roofline import attained, together

    columns = [
        Column("layer", folds=True),
        Column("schedule"),
        Column("time", number=True),
        Column("share", number=True),
        Column("GFLOP/s", number=True),
        Column("of peak", number=True),
        Column("MB", number=True),
        Column("GB/s", number=True),
        Column("of memory", number=True),
        Column("of roofline", number=True),
    ]
    whole = together(phases)
    cells = []
    for row, parts in [*[(phase, [phase]) for phase in phases], (whole, list(phases))]:
        cells.append(
            [
                row.label,
                row.schedule,
                duration(row.seconds),
                f"{row.seconds / (whole.seconds or 1.0):.1%}",
                f"{row.flops / 1e9:.1f}" if row.flops else "",
                f"{row.flops / limits.flops:.0%}" if row.flops else "",
                f"{row.bytes_moved / 1e6:.2f}",
                f"{row.bandwidth / 1e9:.1f}",
                f"{row.bandwidth / limits.bandwidth:.0%}",
                f"{attained(parts, limits):.0%}",
            ]
        )
    print_table(columns, cells)
