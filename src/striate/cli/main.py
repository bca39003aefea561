"""The program `striate`: its commands, and what happens where one of them ends."""

import gc
import os
import sys
from typing import Annotated

import typer

import striate
from striate.cli.bench import bench
from striate.cli.classify import classify
from striate.cli.compile import compile
from striate.cli.dense import dense
from striate.cli.evaluate import evaluate
from striate.cli.explain import explain
from striate.cli.guard import DONE, INTERRUPTED, UNUSABLE, discard_output, guarded, message, say
from striate.cli.hypercolumns import hypercolumns
from striate.cli.inspect import inspect
from striate.cli.models import models
from striate.cli.race import race
from striate.cli.segment import segment
from striate.cli.tune import tune

app = typer.Typer(
    name="striate",
    help="Convolutional networks as equations, compiled to machine code for this CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    *(classify, dense, segment, hypercolumns, evaluate),
    *(models, inspect, explain),
    *(bench, tune, race, compile),
)
for command in COMMANDS:
    app.command()(guarded(command))


def print_version(wanted: bool) -> None:
    """Print the version and end, if it was asked for."""
    if wanted:
        print(f"striate {striate.__version__}")
        raise typer.Exit


@app.callback()
def striate_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Convolutional networks as equations, compiled to machine code for this CPU."""


def run() -> None:
    """Run the command line of this process and exit with its status."""
    start_lightly()
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        discard_output()
        sys.exit(DONE)
    except OSError as error:
        discard_output()
        say(f"striate: the output could not be written: {message(error)}")
        sys.exit(UNUSABLE)
    finally:
        # The interpreter's end looks for cycles among all objects, which takes 100 ms; nothing
        # that has to be closed waits in one.
        gc.freeze()


def start_lightly() -> None:
    """Spare the process what it pays for on its way to the first answer and never uses."""
    # Imports and the compiler make objects that stay, and few cycles.
    gc.set_threshold(50_000)
    # NumPy's BLAS would start threads; networks run on a team of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
