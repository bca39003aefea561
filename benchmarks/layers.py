"""Which layers of a network run at the limit of this CPU: time, share of the peak, roofline.

    python benchmarks/layers.py resnet50                      # 1 image, 2 threads
    python benchmarks/layers.py vgg16 --threads 1 --sort

It is `striate bench --layers` with the golden weights, between two measurements of what the CPU can
do. A row is a phase of the compiled program: a kernel, or several that run side by side. "of peak"
is its share of the multiply-adds that the CPU was measured to do; "of roofline" is the least time
that its multiply-adds and its bytes allow (the longer of the two, at measured rates) over the time
it took. Bytes that a cache still holds come faster than from memory: small layers may exceed 100%.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from networks import BESIDE_THE_CHECKOUT, Collection, UnavailableError
from race import write_whole
from rich.console import Console

from striate.cli.bench import print_layers
from striate.compiler.choose import ALGORITHMS
from striate.runtime.roofline import Limits, Timed, timed_phases


def measure(collection: Collection, args: argparse.Namespace) -> list[Timed]:
    """Compile `args.network` with the golden weights and time its phases."""
    from striate import models, weights

    model = models.create(args.network)
    model.load_state_dict(weights.read(collection.weights(args.network)))
    images = collection.images(args.network, args.batch).transpose(0, 2, 3, 1)
    executable = model.compile(tuple(images.shape), threads=args.threads, algorithm=args.algorithm)
    seconds = executable.profile(np.ascontiguousarray(images), repeat=args.repeat)
    return timed_phases(executable.program, seconds)


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
    with Console(stderr=True).status("measuring"):
        limits = Limits.measured(args.threads, seconds=0.3)
        found = measure(collection, args)
        limits = limits.or_more(Limits.measured(args.threads, seconds=0.3))
    if args.sort:
        found.sort(key=lambda row: -row.seconds)
    peak = f"peak {limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.0f} GB/s"
    print(f"{args.network}, batch {args.batch}, {args.threads} threads; {peak}\n")
    print_layers(found, limits)
    if args.json:
        write_whole(args.json, {"limits": asdict(limits), "rows": [asdict(row) for row in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
