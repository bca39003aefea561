"""Race Striate against ONNX Runtime, OpenVINO and ncnn on the same networks, weights and images.

    python benchmarks/race.py                                    # 13 networks, batch 1, 2 threads
    python benchmarks/race.py --networks resnet50,vgg16 --threads 1 --json race.json

The engines take turns in rounds within one run, so that a slow minute of the machine slows them
all; an engine's time is the median over rounds of the median of a round's few calls. Between turns
the process rests, because a peer's thread pool may spin on after its last call (ONNX Runtime's does
for about 50 ms); what each engine still burns while resting is said under the table. A network's
ratio is the time of the fastest peer over ours: above 1 we are faster.
"""

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from networks import BESIDE_THE_CHECKOUT, CACHE, NAMES, Array, Collection, UnavailableError
from peers import ENGINES, OURS, Runner, load, missing, version
from rich.console import Console
from rich.table import Table

from striate.compiler.choose import ALGORITHMS

TOLERANCE = 1e-3  # of the largest logit: what Winograd in float32 needs, and bfloat16 does not keep

CAPTION = (
    "ms: median over rounds; ratio: fastest peer / striate; least: the same of least single calls"
)


@dataclass(slots=True)
class Lane:
    """One engine on one network: times in seconds, `rounds` one median for each turn."""

    engine: str
    first_answer: float = math.nan
    rounds: list[float] = field(default_factory=list)
    best: float = math.inf
    busy_rest: float = 0.0
    difference: float = math.nan
    problem: str = ""

    @property
    def time(self) -> float:
        """The median over rounds, in seconds; nan if the engine did not run."""
        return statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def wrong(self) -> bool:
        """Whether the engine ran and gave other logits than the golden ones (nan is other)."""
        return bool(self.rounds) and not self.difference <= TOLERANCE


@dataclass(slots=True)
class Heat:
    """All engines on one network."""

    network: str
    lanes: list[Lane]

    @property
    def fastest_peer(self) -> Lane | None:
        peers = [lane for lane in self.lanes if lane.engine != OURS and lane.rounds]
        return min(peers, key=lambda lane: lane.time, default=None)

    @property
    def ratio(self) -> float:
        """The fastest peer's time over ours; nan unless both ran."""
        ours = next((lane for lane in self.lanes if lane.engine == OURS and lane.rounds), None)
        peer = self.fastest_peer
        return peer.time / ours.time if ours and peer else math.nan

    @property
    def least_ratio(self) -> float:
        """The least single call of all peers over our least: what a quiet moment would show."""
        peers = [lane.best for lane in self.lanes if lane.engine != OURS and lane.rounds]
        ours = [lane.best for lane in self.lanes if lane.engine == OURS and lane.rounds]
        return min(peers) / ours[0] if peers and ours else math.nan


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of the values that are numbers; nan if none is."""
    known = [value for value in values if not math.isnan(value)]
    return math.exp(statistics.fmean(map(math.log, known))) if known else math.nan


def relative_difference(given: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    if given.shape != expected.shape:
        raise UnavailableError(f"logits have shape {given.shape}, expected {expected.shape}")
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def take_turn(lane: Lane, run: Runner, seconds: float, rest: float) -> None:
    """A few calls of `run` for about `seconds`; then `rest` seconds of idling, watched."""
    run()  # brings weights and buffers back into the caches that the last engine filled
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 50):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    lane.rounds.append(statistics.median(times))
    lane.best = min(lane.best, *times)
    before = time.process_time()
    time.sleep(rest)
    lane.busy_rest = max(lane.busy_rest, time.process_time() - before)


def run_heat(
    collection: Collection, network: str, lanes: list[Lane], args: argparse.Namespace
) -> Heat:
    """Load `network` on every engine, compare the answers with the golden ones, and race."""
    runners: dict[str, Runner] = {}
    expected = collection.logits(network, args.batch)
    for lane in lanes:
        try:
            loaded = load(
                lane.engine, collection, network, args.batch, args.threads, args.algorithm
            )
            lane.difference = relative_difference(np.asarray(loaded.run()), expected)
        except Exception as error:  # an engine that fails must not end the race of the others
            lane.problem = f"{type(error).__name__}: {error}"
            continue
        lane.first_answer = loaded.first_answer
        runners[lane.engine] = loaded.run
        time.sleep(args.rest)
    starters = [lane for lane in lanes if lane.engine in runners]
    for turn in range(args.rounds if starters else 0):
        shift = turn % len(starters)
        for lane in starters[shift:] + starters[:shift]:
            take_turn(lane, runners[lane.engine], args.seconds, args.rest)
    return Heat(network, lanes)


def table(heats: Sequence[Heat], engines: Sequence[str], title: str) -> Table:
    """The race as a table: milliseconds, and the ratio of the fastest peer to ours."""
    shown = Table(title=title, caption=CAPTION)
    shown.add_column("network", no_wrap=True)
    for engine in engines:
        shown.add_column(engine, justify="right")
    shown.add_column("fastest peer", no_wrap=True)
    shown.add_column("ratio", justify="right")
    shown.add_column("least", justify="right")
    for heat in heats:
        fastest = min((lane.time for lane in heat.lanes if lane.rounds), default=math.nan)
        cells = []
        for lane in heat.lanes:
            cell = f"{lane.time * 1e3:.2f}" if lane.rounds else "-"
            cells.append(f"[bold]{cell}[/bold]" if lane.time == fastest else cell)
        peer = heat.fastest_peer
        name = peer.engine if peer else "-"
        shown.add_row(heat.network, *cells, name, f"{heat.ratio:.2f}", f"{heat.least_ratio:.2f}")
    ratios = [[heat.ratio for heat in heats], [heat.least_ratio for heat in heats]]
    shown.add_section()
    means = [geometric_mean([h.lanes[k].time * 1e3 for h in heats]) for k in range(len(engines))]
    shown.add_row(
        "geometric mean",
        *[f"{value:.2f}" for value in means],
        "",
        *[f"{geometric_mean(r):.2f}" for r in ratios],
    )
    return shown


def notes(heats: Sequence[Heat], engines: Sequence[str]) -> list[str]:
    """What the table has no room for: differences, first answers, rests, and what went wrong."""
    lines = []
    for k, engine in enumerate(engines):
        lanes = [heat.lanes[k] for heat in heats]
        ran = [lane for lane in lanes if lane.rounds]
        if ran:
            first = [lane.first_answer for lane in ran]
            lines.append(
                f"{engine} {version(engine)}: within {max(lane.difference for lane in ran):.1e} of "
                f"the golden logits; first answer after {min(first):.2f} to {max(first):.2f} s; "
                f"at most {max(lane.busy_rest for lane in ran) * 1e3:.0f} ms of CPU in a rest"
            )
        for heat in heats:
            lane = heat.lanes[k]
            if lane.problem:
                lines.append(f"{engine} did not run {heat.network}: {lane.problem}")
            elif lane.wrong:
                lines.append(
                    f"{engine} is WRONG on {heat.network}: difference {lane.difference:.1e}"
                )
    return lines


def _plain(value: object) -> object:
    """`value` with None for the numbers that JSON does not have."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _plain(part) for key, part in value.items()}
        case list():
            return [_plain(part) for part in value]
        case _:
            return value


def comma_separated(text: str) -> tuple[str, ...]:
    """The names in `text`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def write_whole(path: Path, record: object) -> None:
    """`record` as JSON in `path`, renamed into place so that no reader sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def write_json(path: Path, heats: Sequence[Heat], args: argparse.Namespace) -> None:
    """Everything that the race measured."""
    record = {
        "batch": args.batch,
        "threads": args.threads,
        "algorithm": args.algorithm,
        "rounds": args.rounds,
        "cpus": os.cpu_count(),
        "versions": {e: version(e) for e in args.engines if not missing(e)},
        "geometric_mean_ratio": geometric_mean([heat.ratio for heat in heats]),
        "heats": [
            asdict(heat) | {"ratio": heat.ratio, "least_ratio": heat.least_ratio} for heat in heats
        ],
    }
    write_whole(path, record)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--networks", type=comma_separated, default=NAMES, help="comma-separated")
    parser.add_argument(
        "--engines", type=comma_separated, default=tuple(ENGINES), help="comma-separated"
    )
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--threads", type=int, default=2, help="threads of every engine")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="auto", help="of striate")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every engine")
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="length of a turn, if 3 calls fit"
    )
    parser.add_argument("--rest", type=float, default=0.1, help="seconds of idling after a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument(
        "--peers", type=Path, default=BESIDE_THE_CHECKOUT, help="folder of ONNX graphs"
    )
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="folder for filled and converted graphs"
    )
    args = parser.parse_args(given)
    unknown = sorted(set(args.engines) - set(ENGINES))
    if unknown or not args.engines:
        parser.error(f"--engines takes {', '.join(ENGINES)}; given: {', '.join(unknown) or 'none'}")
    for option in ("batch", "threads", "rounds"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} is {getattr(args, option)}, expected 1 or more")
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Run the race: 0 if all answers were right, 1 if one was not, 2 if nothing could run."""
    args = arguments(given)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    collection = Collection(args.peers.resolve(), args.cache.resolve())
    engines = []
    for engine in args.engines:
        absent = missing(engine)
        if absent:
            console.print(f"{engine} is left out: pip install {' '.join(absent)}")
        else:
            engines.append(engine)
    try:
        collection.check(args.networks)
        if not engines:
            raise UnavailableError("none of the engines is installed")
    except UnavailableError as error:
        print(f"race: {error}", file=sys.stderr)
        return 2
    heats: list[Heat] = []
    for network in args.networks:
        with console.status(f"{network} ({len(heats) + 1} of {len(args.networks)})"):
            heats.append(run_heat(collection, network, [Lane(e) for e in engines], args))
        gc.collect()
        if args.json:
            write_json(args.json, heats, args)
    title = f"batch {args.batch}, {args.threads} threads, {args.rounds} rounds"
    if args.algorithm != "auto":
        title += f", striate's algorithm {args.algorithm}"
    console.print(table(heats, engines, title))
    for line in notes(heats, engines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    lanes = [lane for heat in heats for lane in heat.lanes]
    if not any(lane.rounds for lane in lanes):
        return 2
    return int(any(lane.wrong for lane in lanes))


if __name__ == "__main__":
    sys.exit(main())
