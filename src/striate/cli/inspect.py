"""`striate inspect`: a network's layers, each with its equation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    PLACE,
    Algorithm,
    AlgorithmOption,
    BatchOption,
    InputOption,
    JsonOption,
    ModelArgument,
)
from striate.cli.output import (
    Column,
    count,
    duration,
    print_json,
    print_table,
    progress,
    shape,
    size,
)
from striate.cli.pictures import Picture, Request, save

if TYPE_CHECKING:
    from striate.models.inspection import Inspection, LayerReport
    from striate.network.receptive import Field


def inspect(
    model: ModelArgument,
    json: JsonOption = False,
    time: Annotated[bool, typer.Option("--time", help="Run it and time each kernel.")] = False,
    input: InputOption = None,
    batch: BatchOption = 1,
    algorithm: AlgorithmOption = Algorithm.AUTO,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture instead: .png, .svg or .pdf.")
    ] = None,
    what: Annotated[
        Picture | None, typer.Option(help="Of what the picture is.", show_default="overview")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="PHOTO", help="For features, field and cam; - is stdin.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="LAYER", help="For filters, features, field and cam.")
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar=PLACE,
            help="For field: a cell of the layer, X from its left and Y from its top, from 0 on.",
            show_default="middle",
        ),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="For cam: number, synset or name.", show_default="top"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="For filters, features and cam.", show_default="imagenet"
        ),
    ] = None,
) -> None:
    """Show every layer of a network: its equation, its sizes, its work and what it sees.

    Memory is that of the layer's output. The receptive field is the pixels that one place of the
    output depends on; stride is from that of one place to that of the next, offset where that of
    the first begins (negative in the padding). With --time, what runs within the kernel of another
    layer has no time of its own.

    --plot draws the architecture with its costs or, with --what, one of them; the filters of the
    first layer; the feature maps of a photo; the receptive field of a cell on a photo; or where in
    a photo a class is found (class-activation map).
    """
    from striate.cli.networks import parse_size
    from striate.models.inspection import inspect

    asked = (image, layer, cell, class_, weights)
    if plot is None and any(option is not None for option in (what, *asked)):
        raise ValueError("--what and the options of pictures need --plot FILE")
    request = None if plot is None else Request(what or Picture.OVERVIEW, plot, *asked)
    if request is not None:
        request.check()
    sizes = parse_size(input) if input is not None else None
    with progress(None) as advance:
        advance(f"{model}: {'timing' if time else 'reading'} its layers", 0)
        found = inspect(model, sizes, batch=batch, time=time, algorithm=str(algorithm))
        if request is not None:
            advance(f"{model}: drawing {request.what}", 0)
            save(request, found)
    if json:
        drawn = {} if plot is None else {"plot": str(plot)}
        print_json({**found.record(), "algorithm": str(algorithm) if time else None, **drawn})
        return
    if request is not None:
        print(f"{plot}: {request.what} of {model} on {shape(found.input)}")
        return
    print_layers(found, time)
    print(f"\n{model} on {shape(found.input)}: {summary(found)}")


def summary(found: "Inspection") -> str:
    """The network in one line."""
    unused = f" ({count(found.unused)} in heads for training only)" if found.unused else ""
    return (
        f"{count(found.parameters)} parameters{unused}, {count(found.multiply_adds)} multiply-adds"
    )


def print_layers(found: "Inspection", time: bool) -> None:
    """The table of layers, with times where there are any."""
    columns = [
        Column("layer"),
        Column("equation", folds=True),
        Column("output"),
        Column("parameters", number=True),
        Column("multiply-adds", number=True),
        Column("memory", number=True),
        Column("field", number=True),
        Column("stride", number=True),
        Column("offset", number=True),
    ]
    if time:
        columns += [Column("time", number=True), Column("of roofline", number=True)]
    print_table(columns, [cells(layer)[: len(columns)] for layer in found.layers])


def cells(layer: "LayerReport") -> list[str]:
    """The layer as text."""
    return [
        layer.layer,
        layer.equation,
        shape(layer.shape),
        f"{layer.parameters:,}" if layer.parameters else "",
        count(layer.multiply_adds) if layer.multiply_adds else "",
        size(layer.bytes),
        *[along(layer.fields, name) for name in ("size", "stride", "offset")],
        duration(layer.seconds) if layer.seconds is not None else "",
        f"{layer.roofline:.0%}" if layer.roofline is not None else "",
    ]


def along(fields: "tuple[Field, ...]", name: str) -> str:
    """A number of the receptive field: one for all axes where they agree."""
    values = ["?" if (value := getattr(field, name)) is None else f"{value:g}" for field in fields]
    return values[0] if len(set(values)) == 1 else " x ".join(values)
