"""`striate evaluate`: what it prints and writes, how it ends, how it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_data import class_folders, network, paint
from typer.testing import CliRunner, Result

import striate as st
from striate.cli.main import app

STRIATE = [sys.executable, "-c", "from striate.cli.main import run; run()"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(st.save(network(), tmp_path / "tiny.striate", (4, 8, 8, 3)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


def run(model: str, data: Path, *options: str | Path) -> Result:
    journal = data.parent / "journal"
    arguments = ["evaluate", model, "--data", data, "--journal", journal, *options]
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_text_and_files(model: str, data: Path, tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    done = run(model, data, "-o", page, "--sheet", sheet, "--worst", "3", "--threads", "1")
    assert (done.exit_code, done.stderr) == (0, "")
    result = st.evaluate(network(), data)
    first, top1, top5, speed, *_ = done.stdout.splitlines()
    assert first.endswith(": 35 images of 7 classes")
    assert f"{result.top1_error.value:.2%}" in top1
    assert f"{result.top5_error.value:.2%}" in top5
    assert "images a second" in speed
    assert page.read_text("utf-8").count("<figure>") == 3
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert f"2 of {result.top1_error.count}" not in page.read_text("utf-8")


def test_json(model: str, data: Path) -> None:
    (data / "red" / "bad.jpg").touch()
    paint(data / "alone.png", 1)
    done = run(model, data, "--json", "--worst", "2")
    assert done.exit_code == 1
    assert "bad.jpg: the file is empty\n" in done.stderr
    assert "1 images have no class" in done.stderr
    found = json.loads(done.stdout)
    result = st.evaluate(network(), data)
    # The same network in another form: other times, and probabilities to the last bit.
    for key in ("images", "top1_error", "top5_error", "classes", "confusions", "unlabelled"):
        wanted = json.loads(json.dumps(result.as_json(2)))[key]
        assert found[key] == wanted
    assert len(found["mistakes"]) == 2
    assert found["unreadable"][0]["reason"] == "the file is empty"


def test_it_goes_on_and_says_so(model: str, data: Path) -> None:
    assert run(model, data, "--limit", "5").stderr == ""
    assert "5 of 35 images were evaluated before; going on" in run(model, data).stderr
    assert "all 35 images were evaluated before" in run(model, data).stderr
    assert run(model, data, "--restart").stderr == ""
    (data / "red" / "0.png").unlink()
    assert "images; starting anew" in run(model, data).stderr


def start(model: str, data: Path) -> "subprocess.Popen[str]":
    """An evaluation in a process of its own that has begun and is far from its end."""
    journal = data.parent / "journal"
    process = subprocess.Popen(
        [*STRIATE, "evaluate", model, "--data", str(data), "--journal", str(journal), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 5:
            return process
        time.sleep(0.001)
    raise AssertionError(process.communicate())


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_goes_on(model: str, tmp_path: Path, number: int) -> None:
    data = class_folders(tmp_path / "data", 4)
    for k in range(120):
        paint(data / "red" / f"more{k}.png", k, (700, 600))
    process = start(model, data)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert out == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "of 148 images are kept in" in error
        assert "the same command goes on from there" in error
    resumed = run(model, data, "--json")
    assert resumed.exit_code == 0
    assert "evaluated before; going on" in resumed.stderr
    whole = run(model, data, "--json", "--restart")
    timed = ("resumed", "images_per_second")
    first, second = (
        {key: value for key, value in json.loads(done.stdout).items() if key not in timed}
        for done in (resumed, whole)
    )
    assert first == second
    assert first["images"] == 148


def test_without_a_journal_named_it_is_in_the_cache(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    arguments = ["evaluate", model, "--data", str(data)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "all 35 images" in CliRunner().invoke(app, arguments).stderr
    assert len(list((tmp_path / "cache" / "evaluations").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sheet", "sheet.gif"], "--sheet is sheet.gif, expected a name that ends in .png"),
        (["-o", "nowhere/page.html"], "there is no folder nowhere"),
        (["-o", "."], "is a folder, expected the name of a file"),
        (["--labels", "no.csv"], "no.csv"),
        (["--limit", "0"], "--limit"),
        (["--journal", "diary"], "diary: it is no journal of an evaluation"),
        (["--weights", "other.pth"], "has its weights in it"),
    ],
)
def test_bad_options(
    model: str, data: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    Path("diary").write_text("dear diary")
    done = run(model, data, *options)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_bad_data(model: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run(model, tmp_path / "data")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there are no class folders in it" in done.stderr
    done = run(model, tmp_path / "none")
    assert done.exit_code == 2
    assert "no such file or folder" in done.stderr
