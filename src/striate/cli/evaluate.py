"""`striate evaluate`: how often a network is right about images whose classes are known."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import BatchOption, JsonOption, ThreadsOption, WeightsOption
from striate.cli.guard import INTERRUPTED, SOME_FAILED, say
from striate.cli.output import Column, check_output, print_json, print_table, progress, write_image

if TYPE_CHECKING:
    from striate.evaluation import Evaluation, Share
    from striate.evaluation.journal import Journal

# Rows of a table that a person reads on a terminal.
_ROWS = 10


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The network (`striate models`), or a file of `striate compile`."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|FILE",
            help="A folder of class folders, or a list: CSV, TSV, or lines of path and class.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The classes of a folder's images: a list, or ImageNet's truth."
        ),
    ] = None,
    synsets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="How ImageNet's truth numbers classes: map_clsloc.txt or meta.mat.",
            show_default="beside it",
        ),
    ] = None,
    weights: WeightsOption = "imagenet",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A page of HTML.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture of the surest mistakes.")
    ] = None,
    json: JsonOption = False,
    worst: Annotated[int, typer.Option(min=1, help="Mistakes on the page and the sheet.")] = 24,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="So many images, always the same.", show_default="all"),
    ] = None,
    exif: Annotated[
        bool, typer.Option(help="Turn photos upright; published accuracies were without.")
    ] = True,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was found.")] = False,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keeps what is found.", show_default="in the cache"),
    ] = None,
    batch: BatchOption = 8,
    threads: ThreadsOption = None,
) -> None:
    """Measure a network's top-1 and top-5 error on images whose classes are known.

    The classes' folders are called by synset, name or number, or are the network's own in sorted
    order. A run that is stopped goes on where it was. Images that cannot be read are named and not
    counted. The exit code is 0 if all were read, 1 if some were not, 2 if nothing could be done.
    """
    from striate.evaluation.dataset import read_dataset
    from striate.evaluation.journal import Journal
    from striate.evaluation.run import about, find_subject, run
    from striate.evaluation.sheet import FORMATS

    if output is not None:
        check_output(output, "--output")
    if sheet is not None:
        check_output(sheet, "--sheet", tuple(FORMATS))
    subject = find_subject(model, weights, None, threads, exif)
    dataset = read_dataset(data, labels, synsets, subject.classifier.labels, subject.classes)
    path = journal or _default_journal(model, data)
    with Journal(path, about(subject, dataset, exif), restart) as kept:
        places = dataset.subset(limit)
        resumed = sum(place in kept.found for place in places)
        _say_start(kept, resumed, len(places))
        try:
            with progress(len(places)) as advance:
                advance("", resumed)
                evaluation = run(
                    subject, dataset, kept, batch, limit, lambda name: advance(name, 1)
                )
        except KeyboardInterrupt:
            say(
                f"striate: interrupted; {sum(place in kept.found for place in places)} of "
                f"{len(places)} images are kept in {path}; the same command goes on from there"
            )
            raise typer.Exit(INTERRUPTED) from None
    _say_left_out(evaluation)
    _write(evaluation, output, sheet, worst)
    if json:
        print_json(evaluation.as_json(worst))
    else:
        _print(evaluation)
    if evaluation.failures:
        raise typer.Exit(SOME_FAILED)


def _default_journal(model: str, data: Path) -> Path:
    """A file in the cache for this network's name and this place of data."""
    import hashlib

    from striate.compiler.cache import cache_directory

    key = f"{model}\0{os.path.abspath(data)}".encode(errors="surrogateescape")
    return cache_directory() / "evaluations" / f"{hashlib.sha256(key).hexdigest()[:16]}.jsonl"


def _say_start(journal: "Journal", resumed: int, total: int) -> None:
    if journal.differs:
        say(f"striate: not as in {journal.path}: {', '.join(journal.differs)}; starting anew")
    elif resumed == total:
        say(f"striate: all {total} images were evaluated before; --restart does it anew")
    elif resumed:
        say(f"striate: {resumed} of {total} images were evaluated before; going on")


def _say_left_out(evaluation: "Evaluation") -> None:
    for failure in evaluation.failures:
        say(f"striate: {failure.path}: {failure.reason}")
    for one in evaluation.duplicates:
        if one.contradicts:
            say(f"striate: {one.path} is {one.first}, which was said to be of another class")
    left_out = (
        (len(evaluation.duplicates), "files were named before and are counted once"),
        (len(evaluation.unlabelled), "images have no class and are not counted"),
    )
    for number, words in left_out:
        if number:
            say(f"striate: {number} {words}")


def _write(evaluation: "Evaluation", output: Path | None, sheet: Path | None, worst: int) -> None:
    if output is not None:
        from striate.compiler.files import write_atomically
        from striate.evaluation.page import as_html

        page = as_html(evaluation, worst).encode(errors="replace")
        write_atomically(output, [page], durable=True)
    if sheet is not None:
        from striate.evaluation.sheet import FORMATS, contact_sheet

        picture = contact_sheet(evaluation, evaluation.mistakes()[:worst])
        write_image(sheet, picture, FORMATS[sheet.suffix.lower()])


def _print(evaluation: "Evaluation") -> None:
    """The result for people: the errors, the worst classes, the most frequent confusions."""
    classes = evaluation.by_class()
    print(
        f"{evaluation.model}: {len(evaluation.outcomes)} images of {len(classes)} classes\n"
        f"  top-1 error  {_share(evaluation.top1_error)}\n"
        f"  top-5 error  {_share(evaluation.top5_error)}"
    )
    if evaluation.images_per_second:
        print(f"  {evaluation.images_per_second:.1f} images a second")
    wrong = [one for one in classes if one.top1_error.count]
    if wrong:
        print()
        columns = [Column("worst classes", folds=True), Column("images", number=True)]
        columns += [Column("top-1 error", number=True), Column("top-5 error", number=True)]
        print_table(
            columns,
            [
                [
                    one.name,
                    str(one.top1_error.total),
                    f"{one.top1_error.value:.1%}",
                    f"{one.top5_error.value:.1%}",
                ]
                for one in wrong[:_ROWS]
            ],
        )
        print()
        columns = [Column("class", folds=True), Column("taken for", folds=True)]
        print_table(
            [*columns, Column("images", number=True)],
            [
                [evaluation.name(one.label), evaluation.name(one.guess), str(one.count)]
                for one in evaluation.confusions()[:_ROWS]
            ],
        )


def _share(share: "Share") -> str:
    low, high = share.interval
    return f"{share.value:6.2%}  ({low:.2%} to {high:.2%})  accuracy {1 - share.value:.2%}"
