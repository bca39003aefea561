"""What a race has shown: a record for programs, tables for people, a page for the documentation."""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from striate.race.engines import OURS
from striate.race.heats import TOLERANCE, Heat, Lane, Pace, geometric_mean
from striate.race.starts import Start, Starts


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; all columns but the first hold numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Roofline:
    """A network's layers beside what the CPU can do: what `striate bench --layers --json` gives."""

    network: str
    batch: int
    threads: int
    report: dict[str, object]


@dataclass(slots=True)
class Results:
    """Everything measured, with what is needed to measure it again."""

    command: str
    date: str
    versions: dict[str, str]
    algorithm: str
    pace: Pace
    heats: list[Heat] = field(default_factory=list)
    starts: list[Starts] = field(default_factory=list)
    rooflines: list[Roofline] = field(default_factory=list)

    def courses(self) -> list[tuple[int, int]]:
        """The (batch, threads) that there are heats of, in order."""
        return list(dict.fromkeys((heat.case.batch, heat.case.threads) for heat in self.heats))

    def on(self, batch: int, threads: int) -> list[Heat]:
        """The heats with this batch and these threads."""
        wanted = (batch, threads)
        return [heat for heat in self.heats if (heat.case.batch, heat.case.threads) == wanted]

    def record(self) -> dict[str, object]:
        """All of it as JSON holds it: numbers that are none become null."""
        means = []
        for batch, threads in self.courses():
            heats = self.on(batch, threads)
            ratio = geometric_mean([heat.ratio for heat in heats])
            least = geometric_mean([heat.least_ratio for heat in heats])
            means.append({"batch": batch, "threads": threads, "ratio": ratio, "least_ratio": least})
        whole = {
            "command": self.command,
            "date": self.date,
            "machine": machine(),
            "versions": self.versions,
            "algorithm": self.algorithm,
            **asdict(self.pace),
            "geometric_means": means,
            "heats": [heat_record(heat) for heat in self.heats],
            "starts": [asdict(start) for start in self.starts],
            "rooflines": [asdict(roofline) for roofline in self.rooflines],
        }
        plain = _plain(whole)
        assert isinstance(plain, dict)
        return plain


def heat_record(heat: Heat) -> dict[str, object]:
    """One heat for programs."""
    peer = heat.best_peer
    lanes = [
        {
            "engine": lane.engine,
            "seconds": lane.seconds,
            "least_seconds": lane.least,
            "rounds": list(lane.rounds),
            "difference": lane.difference,
            "counts": lane.counts,
            "problem": lane.problem,
        }
        for lane in heat.lanes
    ]
    return {
        **asdict(heat.case),
        "best_peer": peer.engine if peer else None,
        "ratio": heat.ratio,
        "least_ratio": heat.least_ratio,
        "lanes": lanes,
    }


def as_json(results: Results) -> str:
    """The record as text."""
    return json.dumps(results.record(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def machine() -> str:
    """The CPU and the system in words."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    system, python = platform.system(), platform.python_version()
    return f"{model}, {os.cpu_count()} CPUs, {system}, Python {python}"


def course_title(batch: int, threads: int) -> str:
    """`batch 1, 2 threads`."""
    return f"batch {batch}, {threads} thread{'s' * (threads > 1)}"


def heat_table(heats: Sequence[Heat]) -> Table:
    """Milliseconds of every engine, the best peer, and its time over ours."""
    engines = [lane.engine for lane in heats[0].lanes]
    case = heats[0].case
    rows = []
    for heat in heats:
        peer = heat.best_peer
        ends = (peer.engine if peer else "-", _ratio(heat.ratio), _ratio(heat.least_ratio))
        rows.append((heat.case.network, *map(_cell, heat.lanes), *ends))
    columns = [[heat.lanes[k] for heat in heats] for k in range(len(engines))]
    means = [geometric_mean([_milliseconds(lane) for lane in lanes]) for lanes in columns]
    ratios = [
        geometric_mean([heat.ratio for heat in heats]),
        geometric_mean([heat.least_ratio for heat in heats]),
    ]
    rows.append(("geometric mean", *map(_number, means), "", *map(_ratio, ratios)))
    headings = ("network", *engines, "best peer", "ratio", "least")
    return Table(course_title(case.batch, case.threads), headings, tuple(rows))


def start_tables(starts: Sequence[Starts]) -> list[Table]:
    """Cold and warm starts in seconds and milliseconds, and peak memory in MB."""
    if not starts:
        return []
    engines = list(dict.fromkeys(start.engine for start in starts))
    networks = list(dict.fromkeys(start.case.network for start in starts))
    found = {(start.case.network, start.engine): start for start in starts}
    place = course_title(starts[0].case.batch, starts[0].case.threads)

    def table(title: str, attribute: str, value: str, scale: float) -> Table:
        rows = []
        for network in networks:
            cells = []
            for engine in engines:
                start: Start | None = getattr(found[network, engine], attribute)
                cells.append(_number(getattr(start, value) * scale) if start else "-")
            rows.append((network, *cells))
        return Table(f"{title}, {place}", ("network", *engines), tuple(rows))

    return [
        table("cold start (ms)", "cold", "first_answer", 1e3),
        table("warm start (ms)", "warm", "first_answer", 1e3),
        table("peak memory of a warm process (MB)", "warm", "peak_bytes", 1e-6),
        table("peak memory of a cold process (MB)", "cold", "peak_bytes", 1e-6),
    ]


def roofline_table(roofline: Roofline) -> Table:
    """The layers of one network: time, rates, and the share of what the CPU can do."""
    report = roofline.report
    layers = report["layers"]
    assert isinstance(layers, list)
    rows = tuple(
        (
            layer["layer"],
            layer["schedule"],
            f"{layer['seconds'] * 1e6:.0f}",
            f"{layer['gflops']:.1f}" if layer["multiply_adds"] else "",
            f"{layer['bytes_moved'] / 1e6:.2f}",
            f"{layer['gbs']:.1f}",
            layer["bound"],
            f"{layer['roofline']:.0%}",
        )
        for layer in layers
    )
    headings = ("layer", "schedule", "µs", "GFLOP/s", "MB", "GB/s", "bound by", "of roofline")
    title = (
        f"{roofline.network}, {course_title(roofline.batch, roofline.threads)}: "
        f"peak {report['peak_gflops']:.0f} GFLOP/s, {report['bandwidth_gbs']:.0f} GB/s"
    )
    return Table(title, headings, rows)


def notes(results: Results) -> list[str]:
    """What the tables have no room for: versions, differences, and what went wrong."""
    lines = []
    for engine, version in results.versions.items():
        lanes = [lane for heat in results.heats for lane in heat.lanes if lane.engine == engine]
        differences = [lane.difference for lane in lanes if lane.counts]
        within = f": within {max(differences):.1e} of our logits" if differences else ""
        lines.append(f"{engine} {version}" + ("" if engine == OURS else within))
    return lines + problems(results)


def problems(results: Results) -> list[str]:
    """Who did not run, and who gave other logits than ours."""
    lines = []
    for heat in results.heats:
        place = f"{heat.case.network}, {course_title(heat.case.batch, heat.case.threads)}"
        for lane in heat.lanes:
            if lane.problem:
                lines.append(f"{lane.engine} did not run {place}: {lane.problem}")
            elif not lane.agrees:
                lines.append(
                    f"{lane.engine} disagrees on {place} and is not counted: its logits are "
                    f"{lane.difference:.1e} from ours (of the largest), allowed are {TOLERANCE:.0e}"
                )
    for start in results.starts:
        if start.problem:
            lines.append(f"{start.engine} did not start {start.case.network}: {start.problem}")
    return lines


def as_markdown(results: Results, plot: str | None) -> str:
    """The page `docs/performance.md`; `plot` is the path of the picture from there."""
    parts = ["# Performance", _introduction(results)]
    if plot:
        parts.append(f"![The time of every peer over Striate's]({plot})")
    for batch, threads in results.courses():
        table = heat_table(results.on(batch, threads))
        parts += [f"## {_capital(table.title)}", _markdown(table)]
    if results.starts:
        parts += ["## Start and memory", _START_WORDS]
        for table in start_tables(results.starts):
            parts += [f"### {_capital(table.title)}", _markdown(table)]
    if results.rooflines:
        parts += ["## Layers beside the roofline", _ROOFLINE_WORDS]
        for roofline in results.rooflines:
            table = roofline_table(roofline)
            parts += [f"### {table.title}", _markdown(table, words=2)]
    parts += ["## The engines", "\n".join(f"- {line}" for line in notes(results))]
    return "\n\n".join(parts) + "\n"


_START_WORDS = (
    "Every start is a process of its own, timed from the files (weights, or the engine's graph) to"
    " the first\nanswer, after Python, NumPy and the engine's name are known; importing the engine"
    " is part of it. Cold: nothing is compiled\nyet. Warm: the engine finds what it kept (our"
    " compiled network in a file, OpenVINO's model cache; the others keep nothing).\nMemory is the"
    " largest resident size of the whole process, Python included."
)
_ROOFLINE_WORDS = (
    "A row is a phase of the compiled program: a kernel, or several that run side by side. The"
    " roofline is the least time\nthat the multiply-adds or the bytes of operands and result need,"
    " at rates measured on this machine; the last column is that\ntime over the time taken. Bytes"
    " that a cache still holds come faster than from memory, and Winograd's algorithms\nmultiply"
    " less than the equation says: both may exceed 100%."
)


def _introduction(results: Results) -> str:
    pace = results.pace
    return (
        f"Made on {results.date} by\n\n    {results.command}\n\non {machine()}.\n\n"
        f"Milliseconds for one call, float32: medians of {pace.rounds} rounds in which the engines"
        " take turns within one process.\nratio is the time of the fastest peer over Striate's, so"
        " above 1 Striate is faster; least is the same of the least\nsingle calls. Every engine's"
        " logits are compared with Striate's; one that disagrees is named below and not counted."
    )


def _markdown(table: Table, words: int = 1) -> str:
    """The table; its first `words` columns, and "bound by", are words, the others numbers."""
    left = {"bound by", "best peer", *table.headings[:words]}
    rules = ["---" if heading in left else "---:" for heading in table.headings]
    rows = [table.headings, rules, *table.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _milliseconds(lane: Lane) -> float:
    return lane.seconds * 1e3 if lane.counts else math.nan


def _cell(lane: Lane) -> str:
    if lane.rounds and not lane.agrees:
        return "differs"
    return _number(_milliseconds(lane))


def _number(value: float) -> str:
    """Three digits, or - for none."""
    if math.isnan(value):
        return "-"
    return f"{value:#.3g}" if value < 99.95 else f"{value:.0f}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _plain(value: object) -> object:
    """`value` with None for the numbers that JSON does not have."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value
