"""What is it worth to fetch weights before their layer begins?

    python benchmarks/prefetch.py [NETWORK...]

Each network runs with and without, in turns of a few calls; batch 1, all cores. The ratio is the
median over turns of the time without over the time with.
"""

import sys
import time
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from striate import models
from striate.compiler import program_of
from striate.compiler.prefetch import with_prefetches
from striate.compiler.target import Target
from striate.runtime import Executable

NETWORKS = ("shufflenet_v2_x1_0", "mobilenet_v2", "mnasnet1_0", "densenet121", "resnet50")
TURNS, SECONDS = 40, 0.03


def median(run: Executable, image: np.ndarray) -> float:
    """The median time of some calls (seconds)."""
    run(image)
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Print a row for each network."""
    table = Table("network", "without (ms)", "with (ms)", "ratio")
    for name in sys.argv[1:] or NETWORKS:
        height, width = models.find(name).input
        program = program_of(models.create(name).trace((1, height, width, 3)))
        assert program.preparation is not None
        (shape,) = program.preparation.program.outputs
        # Nothing fits into no cache, and nothing is fetched.
        without = with_prefetches(program, 4 * shape[0], replace(Target.host(), l3=0))
        made = [Executable(without), Executable(program)]
        image = np.random.default_rng(0).standard_normal((1, height, width, 3), np.float32)
        times = np.array([[median(run, image) for run in made] for _ in range(TURNS)])
        ratio = np.median(times[:, 0] / times[:, 1])
        table.add_row(name, *[f"{1e3 * t:.2f}" for t in np.median(times, 0)], f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
