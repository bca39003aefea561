"""Which layers of a network run at the limit of this CPU: time, share of the peak, roofline.

    python benchmarks/layers.py resnet50                      # 1 image, 2 threads
    python benchmarks/layers.py vgg16 --threads 1 --sort

A row is a phase of the compiled program: a kernel, or several that run side by side. "peak" is its
share of the multiply-adds that the CPU was measured to do; "roofline" is the least time that its
multiply-adds and its bytes allow (the longer of the two, at measured rates) over the time it took.
Bytes that a cache still holds come faster than from memory, so small layers may exceed 100%.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from networks import BESIDE_THE_CHECKOUT, Collection, UnavailableError
from race import write_whole
from rich.console import Console
from rich.table import Table

from striate.compiler.choose import ALGORITHMS
from striate.compiler.program import Program
from striate.runtime.peak import fma_peak, memory_bandwidth


@dataclass(frozen=True, slots=True)
class Limits:
    """What the CPU was measured to do at most: flop/s and bytes/s of all threads together."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Row:
    """One phase: its labels and schedules, its time (s), and the work in it."""

    label: str
    schedule: str
    seconds: float
    multiply_adds: int
    bytes_moved: int

    @property
    def flops(self) -> float:
        """Operations per second; a multiply-add counts as two."""
        return 2 * self.multiply_adds / self.seconds if self.seconds else 0.0

    def roofline(self, limits: Limits) -> float:
        """The least time that `limits` allow over the time taken."""
        least = max(2 * self.multiply_adds / limits.flops, self.bytes_moved / limits.bandwidth)
        return least / self.seconds if self.seconds else 0.0


def rows(program: Program, seconds: Sequence[float]) -> list[Row]:
    """A row for each phase of `program`, whose times (s) are `seconds`."""
    found = []
    for phase, taken in zip(program.phases, seconds, strict=True):
        labels = list(dict.fromkeys(step.label for step in phase))
        schedules = list(dict.fromkeys(program.kernels[step.kernel].schedule for step in phase))
        work = sum(step.multiply_adds for step in phase)
        moved = sum(step.bytes_moved for step in phase)
        found.append(Row(" | ".join(labels), " | ".join(schedules), taken, work, moved))
    return found


def table(found: Sequence[Row], limits: Limits, title: str) -> Table:
    """The rows, and their sum as the last one."""
    shown = Table(title=title)
    shown.add_column("layer", overflow="fold")
    shown.add_column("schedule")
    for heading in ("µs", "share", "GFLOP/s", "peak", "MB", "roofline"):
        shown.add_column(heading, justify="right")
    together = Row(
        "all phases",
        "",
        sum(row.seconds for row in found),
        sum(row.multiply_adds for row in found),
        sum(row.bytes_moved for row in found),
    )
    # The least time of the whole is that of its phases one after another.
    least = sum(row.roofline(limits) * row.seconds for row in found)
    for row in (*found, together):
        if row is together:
            shown.add_section()
            attained = least / row.seconds if row.seconds else 0.0
        else:
            attained = row.roofline(limits)
        share = row.seconds / together.seconds if together.seconds else 0.0
        shown.add_row(
            row.label,
            row.schedule,
            f"{row.seconds * 1e6:.1f}",
            f"{share:.1%}",
            f"{row.flops / 1e9:.1f}" if row.multiply_adds else "",
            f"{row.flops / limits.flops:.0%}" if row.multiply_adds else "",
            f"{row.bytes_moved / 1e6:.2f}",
            f"{attained:.0%}",
        )
    return shown


def measured_limits(threads: int) -> Limits:
    """The limits of `threads` threads, measured now."""
    return Limits(fma_peak(threads, seconds=0.5) * 1e9, memory_bandwidth(threads))


def measure(collection: Collection, args: argparse.Namespace) -> list[Row]:
    """Compile `args.network` with the golden weights and time its phases."""
    from striate import models, weights

    model = models.create(args.network)
    model.load_state_dict(weights.read(collection.weights(args.network)))
    images = collection.images(args.network, args.batch).transpose(0, 2, 3, 1)
    executable = model.compile(tuple(images.shape), threads=args.threads, algorithm=args.algorithm)
    seconds = executable.profile(np.ascontiguousarray(images), repeat=args.repeat)
    return rows(executable.program, seconds)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", help="one of the raced networks")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="auto", help="(default auto)")
    parser.add_argument("--repeat", type=int, default=30, help="runs of each phase (default 30)")
    parser.add_argument("--sort", action="store_true", help="longest layers first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to FILE")
    parser.add_argument("--peers", type=Path, default=BESIDE_THE_CHECKOUT, help="folder of graphs")
    args = parser.parse_args(given)
    for option in ("batch", "threads", "repeat"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} is {getattr(args, option)}, expected 1 or more")
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print; 2 if the network or its weights are not here."""
    args = arguments(given)
    collection = Collection(args.peers.resolve())
    try:
        collection.check((args.network,))
    except UnavailableError as error:
        print(f"layers: {error}", file=sys.stderr)
        return 2
    console = Console() if sys.stdout.isatty() else Console(width=120)
    with console.status("measuring"):
        before = measured_limits(args.threads)
        found = measure(collection, args)
        after = measured_limits(args.threads)
    # What else runs on the machine can only make a measurement too low.
    limits = Limits(max(before.flops, after.flops), max(before.bandwidth, after.bandwidth))
    if args.sort:
        found.sort(key=lambda row: -row.seconds)
    peak = f"peak {limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.0f} GB/s"
    console.print(
        table(found, limits, f"{args.network}, batch {args.batch}, {args.threads} threads; {peak}")
    )
    if args.json:
        write_whole(args.json, {"limits": asdict(limits), "rows": [asdict(row) for row in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
