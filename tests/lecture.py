"""Runs the page docs/lecture.md: its Python in one namespace, and its commands, in their order.

`python tests/lecture.py` writes what the blocks print, and their pictures, into the page.
"""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from striate.cli.main import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "lecture.md"
PICTURES = PAGE.parent / "lecture"
# Code, and beneath it what it prints; what is tagged as measured is another number every time.
_BLOCK = re.compile(
    r"^```(?P<language>python|sh)\n(?P<code>.*?)^```\n(?:\n```text(?P<tag>[^\n]*)\n(?P<text>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code, where it begins in the page, and the output shown beneath it, if any."""

    language: str
    code: str
    line: int
    shown: str | None
    measured: bool


def blocks(page: str) -> list[Block]:
    """The blocks of the page that run."""
    return [
        Block(
            found["language"],
            found["code"],
            page.count("\n", 0, found.start()) + 2,
            found["text"],
            "measured" in (found["tag"] or ""),
        )
        for found in _BLOCK.finditer(page)
    ]


def outputs(page: str) -> Iterator[tuple[Block, str]]:
    """Each block with what it prints, run in the current folder."""
    names: dict[str, object] = {"__name__": "lecture"}
    for block in blocks(page):
        if block.language == "sh":
            yield block, "".join(_commanded(line) for line in block.code.splitlines())
            continue
        printed = io.StringIO()
        # Errors name the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(PAGE), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        yield block, printed.getvalue()


def _commanded(line: str) -> str:
    """What the command `striate ...` prints."""
    name, *words = shlex.split(line)
    result = CliRunner().invoke(app, words)
    if name != "striate" or result.exit_code:
        raise ValueError(f"{line} ended with {result.exit_code}: {result.output}")
    return result.stdout


def renewed(page: str) -> str:
    """The page with what its blocks print now."""
    printed = iter([text for _, text in outputs(page)])

    def replaced(found: re.Match[str]) -> str:
        text = next(printed)
        code = f"```{found['language']}\n{found['code']}```\n"
        return f"{code}\n```text{found['tag'] or ''}\n{text}```\n" if text else code

    return _BLOCK.sub(replaced, page)


if __name__ == "__main__":
    with contextlib.chdir(PAGE.parent):
        PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
