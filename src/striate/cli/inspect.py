"""`striate inspect`: a network's layers, each with its equation."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    Algorithm,
    AlgorithmOption,
    BatchOption,
    InputOption,
    JsonOption,
    ModelArgument,
)
from striate.cli.output import Column, count, duration, print_json, print_table, shape

if TYPE_CHECKING:
    from striate.layers import Module
    from striate.notation.ir import Shape


@dataclass(frozen=True, slots=True)
class Row:
    """A layer; `seconds` is None where it was not timed or runs within another's kernel."""

    layer: str
    equation: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    seconds: float | None


def inspect(
    model: ModelArgument,
    json: JsonOption = False,
    time: Annotated[bool, typer.Option("--time", help="Run it and time each kernel.")] = False,
    input: InputOption = None,
    batch: BatchOption = 1,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Show every layer of a network: its equation, output, parameters, multiply-adds and time.

    With --time, what runs within the kernel of another layer has no time of its own.
    """
    from striate.cli.networks import network

    module, sizes = network(model, input, batch)
    rows = layer_rows(module, sizes, algorithm if time else None)
    total = {
        "model": model,
        "input": list(sizes),
        "algorithm": str(algorithm) if time else None,
        "parameters": module.count_parameters(),
        "multiply_adds": sum(row.multiply_adds for row in rows),
    }
    if json:
        print_json({**total, "layers": [asdict(row) for row in rows]})
        return
    columns = [
        Column("layer"),
        Column("equation", folds=True),
        Column("output"),
        Column("parameters", number=True),
        Column("multiply-adds", number=True),
    ]
    if time:
        columns.append(Column("time", number=True))
    print_table(columns, [cells(row, time) for row in rows])
    print(f"\n{model} on {shape(sizes)}: {summary(module.count_parameters(), rows)}")


def summary(total: int, rows: list[Row]) -> str:
    """The network in one line; `total` counts the parameters of all its parts."""
    work = count(sum(row.multiply_adds for row in rows))
    unused = total - sum(row.parameters for row in rows)
    auxiliary = f" ({count(unused)} in heads for training only)" if unused else ""
    return f"{count(total)} parameters{auxiliary}, {work} multiply-adds"


def layer_rows(module: "Module", sizes: "Shape", algorithm: str | None) -> list[Row]:
    """A row for each layer of the network's graph; timed where there is an `algorithm`."""
    from striate.cli.networks import buffers, equation, layers, parameters
    from striate.network.graph import Computed
    from striate.notation import multiply_adds

    seconds = kernel_seconds(module, sizes, algorithm) if algorithm else {}
    unlearned = buffers(module)
    return [
        Row(
            layer.label,
            equation(layer),
            tuple(layer.shape),
            parameters(layer, unlearned),
            multiply_adds(layer.statement) if isinstance(layer, Computed) else 0,
            seconds.get(layer.label),
        )
        for layer in layers(module.trace(sizes, abstract=True))
    ]


def kernel_seconds(module: "Module", sizes: "Shape", algorithm: str) -> dict[str, float]:
    """The time of each step by its label; steps that run side by side share their phase's time."""
    import numpy as np

    executable = module.compile(sizes, algorithm=algorithm)
    image = np.zeros(sizes, np.float32)
    times: dict[str, float] = {}
    phases = executable.program.phases
    for phase, seconds in zip(phases, executable.profile(image), strict=True):
        work = [max(step.multiply_adds, step.bytes_moved, 1) for step in phase]
        for step, part in zip(phase, work, strict=True):
            times[step.label] = times.get(step.label, 0.0) + seconds * part / sum(work)
    return times


def cells(row: Row, time: bool) -> list[str]:
    """The row as text."""
    texts = [
        row.layer,
        row.equation,
        shape(row.shape),
        f"{row.parameters:,}" if row.parameters else "",
        count(row.multiply_adds) if row.multiply_adds else "",
    ]
    if time:
        texts.append(duration(row.seconds) if row.seconds is not None else "")
    return texts
