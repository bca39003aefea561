"""`striate tune`: measure the schedules of a network on this machine, and remember the best."""

from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    Algorithm,
    AlgorithmOption,
    BatchOption,
    InputOption,
    JsonOption,
    ThreadsOption,
)
from striate.cli.output import Column, duration, print_json, print_table, progress, shape

if TYPE_CHECKING:
    from striate.runtime.tune import Measured, Tuning


def tune(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="The network; `striate models` lists them."),
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget all that was remembered.")
    ] = False,
    keep: Annotated[bool, typer.Option(help="Remember what is faster.")] = True,
    threads: ThreadsOption = None,
    batch: BatchOption = 1,
    json: JsonOption = False,
    input: InputOption = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Measure which way to compute each layer is the fastest here, and do it so from now on.

    The compiler chooses by estimates; where another way is faster on this machine for this size
    and batch, that is remembered beside the compiled code.
    """
    from striate.compiler.tuned import tuned

    if forget:
        number = tuned().forget()
        if json:
            print_json({"forgotten": number})
            return
        print(f"{number} remembered choice{'s' * (number != 1)} forgotten")
        return
    if model is None:
        raise ValueError("no MODEL given; `striate models` lists them, --forget needs none")
    from striate.cli.networks import network
    from striate.runtime.tune import tune as measure

    module, sizes = network(model, input, batch)
    with progress(None) as advance:
        found = measure(
            module.trace(sizes),
            threads,
            algorithm,
            keep=keep,
            advance=lambda doing: advance(doing, 0),
        )
    if json:
        head = {"model": model, "input": list(sizes), "algorithm": str(algorithm)}
        print_json({**head, **record(found)})
        return
    print_statements(found)
    print(summary(f"{model} on {shape(sizes)}", found, keep))


def record(found: "Tuning") -> dict[str, object]:
    """What was measured, for programs."""
    statements = [
        {
            "layer": one.label,
            "estimated": one.estimated,
            "best": one.best,
            "loss": one.loss,
            "seconds": dict(one.seconds),
        }
        for one in found.statements
    ]
    head = {"seconds_before": found.before, "seconds_after": found.after}
    return {**head, "statements": statements}


def print_statements(found: "Tuning") -> None:
    """The layers that there is a choice for, those that lose most time first."""
    columns = [Column("layer", folds=True), Column("estimated"), Column("time", number=True)]
    columns += [Column("best"), Column("time", number=True), Column("loss", number=True)]
    rows = [
        [
            one.label,
            one.estimated,
            duration(one.seconds[one.estimated]),
            one.best,
            duration(one.seconds[one.best]),
            f"{one.loss:.1%}",
        ]
        for one in sorted(found.statements, key=_lost, reverse=True)
    ]
    print_table(columns, rows)


def summary(title: str, found: "Tuning", keep: bool) -> str:
    """What the estimates lose in all, and what became of it."""
    lost = sum(_lost(one) for one in found.statements)
    changed = sum(one.best != one.estimated for one in found.statements)
    text = f"\n{title}: {duration(found.before)}, of which the estimates' choices lose "
    text += duration(lost) + f" ({lost / found.before:.1%})"
    if not changed or not keep:
        return text + "\nnothing new is remembered"
    if found.after > found.before:
        return text + f"\nby what was measured {duration(found.after)}: nothing is remembered"
    return text + f"\nby what was measured {duration(found.after)}: {changed} choices remembered"


def _lost(one: "Measured") -> float:
    return one.seconds[one.estimated] - one.seconds[one.best]
