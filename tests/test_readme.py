"""What the README shows is what happens: its Python runs, its commands work, its links lead on."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from striate.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the README in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "".join(blocks("sh")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("striate ")]


@pytest.fixture(autouse=True)
def beside_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with the repository's examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("python"))
    assert code.count("assert ") >= 3
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert "espresso" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands())
def test_command_works(command: str) -> None:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_there_are_commands() -> None:
    assert {command.split()[1] for command in commands()} == {
        "classify",
        "dense",
        "evaluate",
        "models",
        "inspect",
        "explain",
        "bench",
        "compile",
        "hypercolumns",
        "segment",
    }


def test_first_answer_is_what_the_demo_prints() -> None:
    (shown,) = blocks("console")
    first, *expected = shown.rstrip().splitlines()
    assert first == "$ make demo"
    recipe = re.search(r"\$\(BIN\)/striate (classify .*)", (ROOT / "Makefile").read_text())
    assert recipe is not None
    printed = CliRunner().invoke(app, recipe.group(1).split()).stdout.splitlines()
    # Probabilities are shown to a tenth of a percent, which another CPU may round otherwise.
    number = r"\d+\.\d%"
    assert [re.sub(number, "%", line) for line in printed] == [
        re.sub(number, "%", line) for line in expected
    ]
    for left, right in zip(printed, expected, strict=True):
        if found := re.search(number, left):
            other = re.search(number, right)
            assert other is not None
            assert abs(float(found.group()[:-1]) - float(other.group()[:-1])) <= 0.11


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
