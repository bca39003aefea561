"""`striate bench`: how fast a network runs, beside what this CPU can do at most."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import Algorithm, AlgorithmOption
from striate.cli.output import Column, count, duration, print_json, print_table, shape

if TYPE_CHECKING:
    from striate.layers import Module
    from striate.network.graph import Array
    from striate.notation.ir import Shape
    from striate.runtime import Executable

# Enough runs for a median that holds, in little enough time to wait for.
_LEAST_RUNS, _MOST_RUNS, _SECONDS = 10, 1000, 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """A phase of the program: layers that run side by side, the kernels' schedules, the time."""

    layer: str
    schedule: str
    seconds: float
    gflops: float
    peak_share: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured; `seconds` is the median of `runs`, `gflops` counts 2 a multiply-add."""

    model: str
    input: tuple[int, ...]
    algorithm: str
    threads: int
    runs: int
    seconds: float
    least_seconds: float
    multiply_adds: int
    gflops: float
    peak_gflops: float
    peak_share: float
    arena_bytes: int
    layers: tuple[Row, ...]


def bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The network; `striate models` lists them.")
    ],
    layers: Annotated[bool, typer.Option("--layers", help="Time each layer as well.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="the cores allowed")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in one run.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    input: Annotated[
        str | None, typer.Option(metavar="HxW", help="The image's size.", show_default="its own")
    ] = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Measure a network: latency, GFLOP/s, and the share of this CPU's measured peak.

    The latency is the median of many runs; the peak is measured beside it, with as many threads.
    """
    from striate.cli.networks import network

    module, sizes = network(model, input, batch)
    report = measure(model, module, sizes, threads, layers, algorithm)
    if json:
        print_json(asdict(report))
        return
    if layers:
        print_layers(report)
    print(
        f"{model} on {shape(sizes)}, {report.threads} thread{'s' * (report.threads > 1)}: "
        f"{duration(report.seconds)} (median of {report.runs} runs, least "
        f"{duration(report.least_seconds)})\n"
        f"{count(report.multiply_adds)} multiply-adds, {report.gflops:.1f} GFLOP/s, "
        f"{report.peak_share:.0%} of the measured peak of {report.peak_gflops:.1f} GFLOP/s\n"
        f"{report.arena_bytes / 1e6:.1f} MB of memory for activations"
    )


def measure(
    model: str,
    module: "Module",
    sizes: "Shape",
    threads: int | None,
    layers: bool,
    algorithm: str,
) -> Report:
    """Compile the network, run it again and again, and measure the peak."""
    import numpy as np

    from striate.runtime.peak import fma_peak

    executable = module.compile(sizes, threads=threads, algorithm=algorithm)
    image = np.random.default_rng(0).standard_normal(sizes, np.float32)
    times = run_times(executable, image)
    peak = fma_peak(executable.threads)
    program = executable.program
    work = sum(step.multiply_adds for phase in program.phases for step in phase)
    median = statistics.median(times)
    speed = 2e-9 * work / median
    return Report(
        model,
        tuple(sizes),
        str(algorithm),
        executable.threads,
        len(times),
        median,
        min(times),
        work,
        speed,
        peak,
        speed / peak,
        program.arena_bytes,
        phase_rows(executable, image, peak) if layers else (),
    )


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


def phase_rows(executable: "Executable", image: "Array", peak: float) -> tuple[Row, ...]:
    """The phases of the program in the order they run."""
    program = executable.program
    rows = []
    for phase, seconds in zip(program.phases, executable.profile(image, repeat=30), strict=True):
        # Borders and packing, in brackets, are named only where they have a phase to themselves.
        steps = [step for step in phase if step.label and step.label[0] != "("] or phase
        labels = dict.fromkeys(step.label or "(copy)" for step in steps)
        schedules = dict.fromkeys(program.kernels[step.kernel].schedule for step in steps)
        work = sum(step.multiply_adds for step in phase)
        speed = 2e-9 * work / seconds if seconds > 0 else 0.0
        rows.append(Row(" | ".join(labels), " | ".join(schedules), seconds, speed, speed / peak))
    return tuple(rows)


def print_layers(report: Report) -> None:
    """The table of phases."""
    columns = [
        Column("layer", folds=True),
        Column("schedule"),
        Column("time", number=True),
        Column("share", number=True),
        Column("GFLOP/s", number=True),
        Column("of peak", number=True),
    ]
    total = sum(row.seconds for row in report.layers) or 1.0
    print_table(
        columns,
        [
            [
                row.layer,
                row.schedule,
                duration(row.seconds),
                f"{row.seconds / total:.1%}",
                f"{row.gflops:.1f}" if row.gflops else "",
                f"{row.peak_share:.0%}" if row.gflops else "",
            ]
            for row in report.layers
        ],
    )
