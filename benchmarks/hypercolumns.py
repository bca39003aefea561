"""Hypercolumns at 200 pixels of a 1024 x 768 photo, beside one pass of the whole network.

    python benchmarks/hypercolumns.py [MODEL ...]

Time: medians of passes in turn. Memory: the peak of a process that does nothing else, three of
each, the least (Linux). Networks are compiled before, weights are random.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODELS = (
    *("alexnet", "vgg16", "resnet18", "resnet50", "squeezenet1_0", "densenet121", "inception_v3"),
    *("googlenet", "shufflenet_v2_x1_0", "mobilenet_v2", "resnext50_32x4d", "wide_resnet50_2"),
    *("mnasnet1_0", "efficientnet_lite0"),
)
SHAPE = (768, 1024, 3)
PIXELS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", choices=["whole", "columns"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.models[0], arguments.peak))
        return
    print(f"{'':20}{'network':>10}{'columns':>10}{'ratio':>8}{'peak':>10}{'peak':>10}")
    for name in arguments.models:
        whole, columns = seconds(name, arguments.rounds)
        memory = [min(measured_peak(name, kind) for _ in range(3)) for kind in ("whole", "columns")]
        line = f"{name:20}{1e3 * whole:7.1f} ms{1e3 * columns:7.1f} ms{columns / whole:8.3f}"
        print(line + "".join(f"{each / 1e6:7.0f} MB" for each in memory), flush=True)


def works(name: str) -> "tuple[object, object]":
    """The whole network, and the hypercolumns, as functions of nothing."""
    import numpy as np

    import striate as st

    random = np.random.default_rng(0)
    model = st.models.create(name)
    image = random.standard_normal(SHAPE, np.float32)
    at = np.stack([random.integers(0, size, PIXELS) for size in SHAPE[:2]], 1)
    return lambda: model(image[np.newaxis]), lambda: st.hypercolumns(model, image, at=at)


def seconds(name: str, rounds: int) -> tuple[float, float]:
    both = works(name)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for work, found in zip(both, times, strict=True):
            start = time.perf_counter()
            work()
            if number:
                found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak(name: str, kind: str) -> int:
    """The most memory (bytes) that this process ever held, after two runs of one kind."""
    work = works(name)[kind == "columns"]
    work()
    work()
    # Not getrusage, which counts what the process held before it became this program.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def measured_peak(name: str, kind: str) -> int:
    command = [sys.executable, __file__, name, "--peak", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return int(done.stdout)


if __name__ == "__main__":
    main()
