"""What a command says when it fails: one message on standard error, never a traceback."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

P = ParamSpec("P")

# Exit codes: everything asked for was done; some files failed; nothing could be done with what was
# given; the program is at fault; stopped from the keyboard.
DONE, SOME_FAILED, UNUSABLE, FAULT, INTERRUPTED = 0, 1, 2, 70, 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command`, whose exceptions become a message and an exit code.

    An error that names what was given wrongly (`ValueError`, `OSError`) is the user's to mend; any
    other is a fault of Striate's and says how to report it. STRIATE_DEBUG=1 shows the traceback.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(DONE) from None
        except KeyboardInterrupt:
            say("striate: interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except MemoryError as error:
            fail(
                error,
                "there is not enough memory; smaller images take less, and fewer of them at once",
            )
            raise typer.Exit(UNUSABLE) from None
        except (ValueError, OSError) as error:
            fail(error, message(error))
            raise typer.Exit(UNUSABLE) from None
        except Exception as error:
            fail(error, fault(error))
            raise typer.Exit(FAULT) from None

    return run


def discard_output() -> None:
    """Send what is still to be written nowhere, for whoever read it has seen enough.

    The interpreter would try once more when it shuts down, and complain.
    """
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: Exception, text: str) -> None:
    """Say `text`, after the traceback of `error` where the user asked for tracebacks."""
    if os.environ.get("STRIATE_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    say(f"striate: {text}")


def fault(error: Exception) -> str:
    """The message for an exception that nothing the user gives should cause."""
    return (
        f"an unexpected error: {type(error).__name__}: {error}\n"
        "This is a fault in Striate. Please report it with the command you gave and what it prints"
        " with STRIATE_DEBUG=1 set."
    )


def message(error: Exception) -> str:
    """The file and the reason of an `OSError`; of any other error its words and its notes."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[0].lower() + error.strerror[1:]
        return f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason
    notes = [f"  {note}" for note in getattr(error, "__notes__", ())]
    return "\n".join([str(error) or type(error).__name__, *notes])


def say(text: str) -> None:
    """Print `text` on standard error, if there is one."""
    if sys.stderr is not None:
        print(text.encode(errors="replace").decode(), file=sys.stderr, flush=True)
