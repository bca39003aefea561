"""`striate classify`: what photos show."""

import csv
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from striate.cli.choices import (
    DEFAULT_MODEL,
    BatchOption,
    JsonLinesOption,
    ThreadsOption,
    WeightsOption,
)
from striate.cli.guard import SOME_FAILED, UNUSABLE, message, say
from striate.cli.output import print_json
from striate.cli.photo import STDIN, standard_input

if TYPE_CHECKING:
    from striate.vision.classification import Classification

T = TypeVar("T")


class Writer(Protocol):
    """A way to print what an image shows."""

    def __call__(self, result: "Classification", /) -> None: ...


def classify(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|-...",
            help="Images, folders of images, and - for one image on standard input.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="The network (`striate models` lists them), or a file of `striate compile`.",
        ),
    ] = DEFAULT_MODEL,
    weights: WeightsOption = "imagenet",
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    json: JsonLinesOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a table of values and commas.")] = False,
    batch: BatchOption = 1,
    threads: ThreadsOption = None,
) -> None:
    """Name what images show, the most probable class first.

    An image that cannot be read is named on standard error and the others go on. The exit code is
    0 if all were classified, 1 if some failed, 2 if there was nothing to classify.
    """
    if json and csv:
        raise typer.BadParameter("choose one of --json and --csv")
    if images.count(STDIN) > 1:
        raise typer.BadParameter("- reads the one image on standard input; give it once")
    write: Writer = JsonLines(model) if json else CommaTable() if csv else Text()
    sources, missing = found(images)
    if not sources:
        raise typer.Exit(UNUSABLE)
    classified, failed = classify_all(sources, write, model, weights, top, batch, threads)
    if not classified:
        raise typer.Exit(UNUSABLE)
    if failed or missing:
        raise typer.Exit(SOME_FAILED)


def found(given: Iterable[str]) -> tuple[list[tuple[str, object]], int]:
    """The images that `given` names, each once, and how many names led to none (said aloud)."""
    from striate.images import find_images

    sources: dict[str, object] = {}
    missing = 0
    for name in given:
        try:
            if name == STDIN:
                sources[STDIN] = standard_input()
            elif not name:
                raise ValueError("an empty name names no image")
            else:
                sources.update((str(path), path) for path in find_images([name]))
        except (ValueError, OSError) as error:
            missing += 1
            say(f"striate: {message(error)}")
    return list(sources.items()), missing


def classify_all(
    sources: list[tuple[str, object]],
    write: Writer,
    model: str,
    weights: str,
    top: int,
    batch: int,
    threads: int | None,
) -> tuple[int, int]:
    """Classify and print all `sources`: how many went well, how many failed."""
    from striate.vision.classification import Unreadable, classifier

    network = classifier(model, weights, threads=threads)
    classified = failed = 0
    results = network.each(sources, top, min(batch, len(sources)))
    for result in with_progress(results, len(sources)):
        if isinstance(result, Unreadable):
            failed += 1
            say(f"striate: {message(result.error)}")
        else:
            classified += 1
            write(result)
    return classified, failed


def with_progress(results: Iterator[T], total: int) -> Iterator[T]:
    """`results`, with a progress bar on standard error where that is a terminal.

    None where the results themselves go to the terminal: they are progress enough.
    """
    shown = total > 1 and sys.stderr is not None and sys.stderr.isatty()
    if not shown or (sys.stdout is not None and sys.stdout.isatty()):
        yield from results
        return
    from rich.console import Console
    from rich.progress import Progress

    # The results on standard output stay what they are; messages go above the bar.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    with bar:
        yield from bar.track(results, total, description="classifying")


class Text:
    """Results for people."""

    def __init__(self) -> None:
        self.first = True

    def __call__(self, result: "Classification") -> None:
        if not self.first:
            print()
        self.first = False
        print(str(result).encode(errors="replace").decode(), flush=True)


class JsonLines:
    """Results for programs, an object a line."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, result: "Classification") -> None:
        from dataclasses import asdict

        top = [asdict(guess) for guess in result.top]
        print_json({"file": result.source, "model": self.model, "top": top})


class CommaTable:
    """Results for spreadsheets, a line for each class named."""

    def __init__(self) -> None:
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(["file", "rank", "index", "synset", "name", "probability"])

    def __call__(self, result: "Classification") -> None:
        for rank, guess in enumerate(result.top, 1):
            values = [guess.index, guess.synset, guess.name, f"{guess.probability:.6g}"]
            self.writer.writerow([result.source, rank, *values])
