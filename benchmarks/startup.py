"""How long from nothing to the first answer: compiling (cold), loading (warm), the shell.

    python benchmarks/startup.py                              # 13 networks and `striate classify`
    python benchmarks/startup.py --networks resnet50 --json startup.json

Every start is a process of its own; a network's processes share a code cache that is empty at the
first. "cold" and "warm" are the first call of a model less its second one: drawing the graph,
compiling or loading, packing the weights. Creating the model and reading its weights come
before and are shown apart, as is the import, beside NumPy's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from networks import BESIDE_THE_CHECKOUT, NAMES, Collection, UnavailableError
from race import comma_separated, write_whole
from rich.console import Console
from rich.table import Table

PHOTOS = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of one process: the import, the weights, what the first call prepares, a call."""

    imports: float
    weights: float
    prepare: float
    call: float


def start_here(collection: Collection, name: str) -> Start:
    """Import, create and run `name` in this process, which must be a new one."""
    file = collection.weights(name)
    began = time.perf_counter()
    from striate import models, weights

    imported = time.perf_counter()
    model = models.create(name)
    model.load_state_dict(weights.read(file))
    images = np.ascontiguousarray(collection.images(name, 1).transpose(0, 2, 3, 1))
    ready = time.perf_counter()
    model(images)
    first = time.perf_counter()
    model(images)
    second = time.perf_counter()
    call = second - first
    return Start(imported - began, ready - imported, first - ready - call, call)


def start_process(name: str, peers: Path, cache: str) -> Start:
    """`start_here` in a new process whose code cache is `cache`; UnavailableError if it fails."""
    command = [sys.executable, __file__, "--child", name, "--peers", str(peers)]
    environment = os.environ | {"STRIATE_CACHE": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{name} did not run: {last}")
    return Start(**json.loads(done.stdout))


def classify_seconds(cache: str, times: int) -> tuple[float, list[float]]:
    """Seconds of `striate classify PHOTO` as the shell sees it: cold, then warm ones."""
    program = Path(sys.executable).with_name("striate")
    photo = next((path for path in sorted(PHOTOS.rglob("*.jpg"))), None)
    if photo is None or not program.exists():
        raise UnavailableError(f"classify needs {program} and a photo in {PHOTOS}")
    environment = os.environ | {"STRIATE_CACHE": cache}
    walls = []
    for _ in range(times + 1):
        began = time.perf_counter()
        done = subprocess.run(
            [str(program), "classify", str(photo)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        walls.append(time.perf_counter() - began)
        if done.returncode:
            raise UnavailableError(
                f"striate classify exits {done.returncode}: {done.stderr[-300:]}"
            )
    return walls[0], walls[1:]


def measure(names: Sequence[str], peers: Path, console: Console) -> dict[str, tuple[Start, Start]]:
    """A cold and a warm start of each network; those that fail are said and left out."""
    starts = {}
    for name in names:
        with tempfile.TemporaryDirectory() as cache, console.status(name):
            try:
                cold = start_process(name, peers, cache)
                warm = min(
                    (start_process(name, peers, cache) for _ in range(3)),
                    key=lambda start: start.prepare,
                )
            except UnavailableError as error:
                console.print(str(error), markup=False, highlight=False)
                continue
        starts[name] = (cold, warm)
    return starts


def table(starts: dict[str, tuple[Start, Start]]) -> Table:
    """Seconds and milliseconds for every network."""
    shown = Table(title="start, batch 1", caption="warm: the least of 3 processes")
    shown.add_column("network", no_wrap=True)
    for heading in ("import ms", "weights s", "cold s", "warm ms", "a call ms"):
        shown.add_column(heading, justify="right")
    for name, (cold, warm) in starts.items():
        shown.add_row(
            name,
            f"{warm.imports * 1e3:.0f}",
            f"{warm.weights:.2f}",
            f"{cold.prepare:.2f}",
            f"{warm.prepare * 1e3:.0f}",
            f"{warm.call * 1e3:.1f}",
        )
    return shown


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=comma_separated, default=NAMES, help="default: all 13")
    parser.add_argument("--no-classify", action="store_true", help="leave out `striate classify`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--peers", type=Path, default=BESIDE_THE_CHECKOUT, help="folder of graphs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if everything ran, 1 if something did not, 2 if nothing could."""
    args = arguments(given)
    collection = Collection(args.peers.resolve())
    if args.child:
        print(json.dumps(asdict(start_here(collection, args.child))))
        return 0
    try:
        collection.check(args.networks)
    except UnavailableError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 2
    console = Console() if sys.stdout.isatty() else Console(width=120)
    starts = measure(args.networks, collection.peers, console)
    console.print(table(starts))
    record: dict[str, object] = {
        name: {"cold": asdict(cold), "warm": asdict(warm)} for name, (cold, warm) in starts.items()
    }
    complete = len(starts) == len(args.networks)
    if not args.no_classify:
        try:
            with tempfile.TemporaryDirectory() as cache, console.status("striate classify"):
                cold_wall, walls = classify_seconds(cache, 5)
        except UnavailableError as error:
            console.print(str(error), markup=False, highlight=False)
            complete = False
        else:
            least, most = min(walls), max(walls)
            console.print(
                f"striate classify: {cold_wall:.2f} s cold, {least:.2f}-{most:.2f} s warm"
            )
            record["classify"] = {"cold": cold_wall, "warm": walls}
    if args.json:
        write_whole(args.json, record)
    return 0 if complete else 1 if starts else 2


if __name__ == "__main__":
    sys.exit(main())
