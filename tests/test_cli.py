"""The frame of the command line: how it prints, how it fails, how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
import typer
from typer.testing import CliRunner

from striate.cli.guard import guarded, message
from striate.cli.main import app
from striate.cli.networks import matching, parse_size
from striate.cli.output import Column, count, duration, print_json, print_table

STRIATE = [sys.executable, "-c", "from striate.cli.main import run; run()"]


def program(arguments: Sequence[str], **settings: str) -> "subprocess.CompletedProcess[str]":
    """`striate` in a process of its own."""
    return subprocess.run(
        [*STRIATE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **settings},
    )


def test_a_process_starts_and_ends_lightly() -> None:
    code = (
        "import atexit, gc, os, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.get_threshold()[0],"
        " os.environ['OPENBLAS_NUM_THREADS'], 'pydantic' in sys.modules))\n"
        "from striate.cli.main import run\n"
        "run()"
    )
    plain = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    for settings, threads in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        done = subprocess.run(
            [sys.executable, "-c", code, "models", "--json"],
            capture_output=True,
            text=True,
            check=True,
            env={**plain, **settings},
        )
        assert done.stdout.splitlines()[-1].split() == ["True", "50000", threads, "False"]


def failing(error: BaseException) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that raises `error`."""
    small = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    def command() -> None:
        print("before")
        raise error

    small.command()(guarded(command))
    result = CliRunner().invoke(small, [])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("top is 0, expected 1 or more"), 2, "striate: top is 0, expected 1 or more\n"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "striate: a.png: no such file\n"),
        (OSError("disk on fire"), 2, "striate: disk on fire\n"),
        (KeyboardInterrupt(), 130, "striate: interrupted\n"),
        (typer.Exit(7), 7, ""),
    ],
)
def test_expected_errors_are_one_message(error: BaseException, code: int, said: str) -> None:
    assert failing(error) == (code, "before\n", said)


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("by zero"), RecursionError()])
def test_unexpected_errors_say_how_to_report(error: Exception) -> None:
    code, _, said = failing(error)
    assert code == 70
    assert type(error).__name__ in said
    assert "STRIATE_DEBUG=1" in said
    assert "Traceback" not in said


def test_lack_of_memory_says_what_to_do() -> None:
    code, _, said = failing(MemoryError())
    assert code == 2
    assert "smaller images take less" in said


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_DEBUG", "1")
    code, _, said = failing(ValueError("no"))
    assert code == 2
    assert "Traceback" in said
    assert said.endswith("striate: no\n")


def test_error_without_words_still_says_something() -> None:
    assert message(ValueError()) == "ValueError"
    assert message(PermissionError(13, "Permission denied")) == "permission denied"


def test_version() -> None:
    done = program(["--version"])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"striate \d+\.\d+\.\d+\n", done.stdout)


def test_help_names_every_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    for command in (
        "classify",
        "evaluate",
        "models",
        "inspect",
        "explain",
        "bench",
        "tune",
        "race",
    ):
        assert command in text
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_no_command_is_a_usage_error() -> None:
    assert program([]).returncode == 2


def test_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [*STRIATE, "models", "--json"], stdout=writer, stderr=subprocess.PIPE, text=True
    ) as running:
        os.close(writer)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*STRIATE, "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_exits_130() -> None:
    code = (
        "import striate.cli.guard as g, time, typer\n"
        "app = typer.Typer(add_completion=False)\n"
        "@app.command()\n"
        "@g.guarded\n"
        "def wait() -> None:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "app()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert (running.returncode, said) == (130, "striate: interrupted\n")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (61_100_840, "61.1 M"),
        (999_999, "1.00 M"),
        (15_470_000_000, "15.5 G"),
        (2_500_000_000_000, "2500 G"),
    ],
)
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (2e-8, "20 ns"),
        (1.5e-6, "1.50 µs"),
        (0.0234, "23.4 ms"),
        (0.99999, "1.00 s"),
        (75.0, "75.0 s"),
        (99.97, "100 s"),
    ],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_table_in_a_pipe_keeps_a_row_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    long = "y[b,p,q,j] = " + "x" * 300 + " [bold]not markup[/bold]"
    print_table([Column("layer"), Column("equation", folds=True)], [["a", long], ["b", "z"]])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["a", *long.split()] for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_json_is_one_line_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "é\n", "n": 1})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"name": "é\n", "n": 1}
    with pytest.raises(ValueError, match="JSON"):
        print_json(float("nan"))


@pytest.mark.parametrize(
    ("text", "size"), [("224x320", (224, 320)), ("299", (299, 299)), ("8X9", (8, 9))]
)
def test_sizes_read(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "224x", "1x2x3", "-1x5", "0x5", "ax5", "1e3", "99999999", "\uff12x2"]
)
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"--input is .*expected") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


def test_layers_are_found_by_name_and_by_module() -> None:
    labels = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer10.conv1"]
    assert matching(labels, "conv1", "net") == ["conv1"]
    assert matching(labels, "layer1", "net") == ["layer1.0.conv1", "layer1.0.conv2"]
    with pytest.raises(ValueError, match=r"no layer 'layer1.0.conv3'.*layer1.0.conv"):
        matching(labels, "layer1.0.conv3", "net")
