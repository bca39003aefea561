"""`striate race`: this package against other runtimes on this machine, in turns."""

import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import Algorithm, AlgorithmOption
from striate.cli.guard import SOME_FAILED, say
from striate.cli.output import Column, check_figure, check_output, print_table, progress

if TYPE_CHECKING:
    from striate.race.cases import Case
    from striate.race.engines import Engine
    from striate.race.report import Results, Roofline, Table

Json = Annotated[Path | None, typer.Option(metavar="FILE", help="All measurements.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="A picture: .png, .svg or .pdf.")]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="A page with all tables.")]


def race(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NETWORKS]...", help="By default thirteen, one of every kind."),
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images in one call.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Of every engine.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every engine.")] = 7,
    peers: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Comma-separated.", show_default="all here")
    ] = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
    starts: Annotated[
        bool, typer.Option(help="Time cold and warm starts and take peak memory, too.")
    ] = True,
    roofline: Annotated[
        list[str] | None, typer.Option(metavar="NETWORK", help="Time its layers, too.")
    ] = None,
    json: Json = None,
    plot: Plot = None,
    markdown: Markdown = None,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keeps graphs and weights.", show_default="in the code cache"
        ),
    ] = None,
) -> None:
    """Race against ONNX Runtime, OpenVINO, ncnn and PyTorch, as far as they are installed.

    Every engine runs the same networks, weights and images, in turns within one process, and its
    answers are compared with ours. --batch, --threads and --roofline may be given several times.
    Exits with 1 if an engine failed or gave another answer.
    """
    from striate.race import report
    from striate.race.cases import NETWORKS, Case, check_network
    from striate.race.engines import OURS, find, version
    from striate.race.files import Files, default_folder
    from striate.race.heats import Pace, run_heat
    from striate.race.starts import measure as measure_start

    names = networks or list(NETWORKS)
    for name in (*names, *(roofline or ())):
        check_network(name)
    cases = [
        Case(name, images, workers)
        for images in batch or [1]
        for workers in threads or [_default_threads()]
        for name in names
    ]
    entrants = [OURS, *_entrants(peers)]
    check_outputs(json, plot, markdown)
    engines: dict[str, Engine] = {name: find(name, algorithm) for name in entrants}
    folder = Files(files or default_folder())
    pace = Pace(rounds)
    results = report.Results(
        shlex.join(["striate", *sys.argv[1:]]),
        datetime.date.today().isoformat(),
        {name: version(name) for name in entrants},
        str(algorithm),
        pace,
    )
    started = _starting(cases) if starts else []
    turns = len(cases) * rounds * len(entrants) + len(started) * len(entrants)
    with progress(turns) as advance:
        for case in cases:
            place = f"{case.network}, {report.course_title(case.batch, case.threads)}"
            advance(place, 0)

            def after(engine: str, place: str = place) -> None:
                advance(f"{place}: {engine}", 1)

            results.heats.append(run_heat(case, engines, folder, pace, after))
            _write(results, json)
        for case in started:
            for name in entrants:
                advance(f"{case.network} from its files: {name}", 1)
                found = measure_start(case, name, str(algorithm), folder.folder)
                results.starts.append(found)
            _write(results, json)
    for name in roofline or []:
        results.rooflines.append(_roofline(name, cases[0].batch, cases[0].threads, str(algorithm)))
    _write(results, json, plot, markdown)
    for course in results.courses():
        _print(report.heat_table(results.on(*course)))
    for table in (*report.start_tables(results.starts), *map(_layers, results.rooflines)):
        _print(table)
    for line in report.notes(results):
        print(line)
    if report.problems(results):
        raise typer.Exit(SOME_FAILED)


def check_outputs(json: Path | None, plot: Path | None, markdown: Path | None) -> None:
    """Raises ValueError or OSError for what could not be written in the end."""
    for path, option in ((json, "--json"), (markdown, "--markdown")):
        if path is not None:
            check_output(path, option)
    if plot is not None:
        check_figure(plot, "--plot")


def _entrants(peers: str | None) -> list[str]:
    """The peers that take part; those not installed are said, or refused if all were asked for."""
    from striate.race.engines import PEERS, find

    asked = [name.strip() for name in peers.split(",") if name.strip()] if peers else list(PEERS)
    missing = {name: find(name).missing() for name in asked}
    here = [name for name in dict.fromkeys(asked) if not missing[name]]
    for name, packages in missing.items():
        if packages:
            say(f"{name} is left out: not installed: {', '.join(packages)}")
    if not here:
        raise ValueError(
            "none of the peers is installed: pip install 'striate[race]', and for ncnn "
            "pip install --no-deps pnnx"
        )
    return here


def _default_threads() -> int:
    from striate.runtime.cores import default_threads

    return default_threads()


def _starting(cases: "Sequence[Case]") -> "list[Case]":
    """The cases whose starts are measured: the smallest batch on the most threads."""
    batch, threads = min(case.batch for case in cases), max(case.threads for case in cases)
    return [case for case in cases if (case.batch, case.threads) == (batch, threads)]


def _roofline(name: str, batch: int, threads: int, algorithm: str) -> "Roofline":
    from striate.cli.bench import measure
    from striate.cli.networks import network
    from striate.race.report import Roofline

    module, sizes = network(name, None, batch)
    executable = module.compile(sizes, threads=threads, algorithm=algorithm)
    return Roofline(name, batch, threads, measure(executable, layers=True).record())


def _layers(roofline: "Roofline") -> "Table":
    from striate.race.report import roofline_table

    return roofline_table(roofline)


def _write(
    results: "Results", json: Path | None, plot: Path | None = None, markdown: Path | None = None
) -> None:
    """Write what was asked for; the record also after every heat, for a race that is stopped."""
    from striate.compiler.files import write_atomically
    from striate.race import report

    if json is not None:
        write_atomically(json, [report.as_json(results).encode()], durable=True)
    if plot is not None:
        from striate.race.plot import draw

        write_atomically(plot, [draw(results, plot.suffix)], durable=True)
    if markdown is not None:
        picture = os.path.relpath(plot, markdown.parent) if plot else None
        page = report.as_markdown(results, picture)
        write_atomically(markdown, [page.encode()], durable=True)


def _print(table: "Table") -> None:
    """A table under its title, and an empty line."""
    print(table.title)
    first, *others = table.headings
    columns = [Column(first), *(Column(heading, number=True) for heading in others)]
    print_table(columns, table.rows)
    print()
