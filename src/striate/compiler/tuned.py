"""Choices of schedules that were measured on this machine, remembered beside the compiled code.

The file holds the sources' version and, for the hash of each statement with its target, the name of
a schedule. What another version has measured is not looked at. Files appear by an atomic rename; a
file that can't be read or written only means that nothing is remembered.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from striate.compiler.cache import cache_directory
from striate.compiler.codegen import version
from striate.compiler.files import write_atomically
from striate.compiler.target import Target
from striate.notation.ir import Statement

# Beyond this many the oldest go.
MOST_CHOICES = 10_000


class Tuned:
    """The remembered choices in one file, read when they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._choices: dict[str, str] | None = None

    def choices(self) -> Mapping[str, str]:
        """The names of schedules by key."""
        if self._choices is None:
            self._choices = self._read()
        return self._choices

    def remember(self, choices: Mapping[str, str | None]) -> None:
        """Add `choices` to those in the file; None forgets one."""
        found = self._read()
        for key, name in choices.items():
            found.pop(key, None)
            if name is not None:
                found[key] = name
        kept = dict(list(found.items())[-MOST_CHOICES:])
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({"version": version(), "choices": kept}, indent=1)
            write_atomically(self.path, [text.encode()])
        self._choices = kept

    def forget(self) -> int:
        """Remove the file; how many choices it held."""
        number = len(self._read())
        self.path.unlink(missing_ok=True)
        self._choices = {}
        return number

    def _read(self) -> dict[str, str]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(stored, dict) or stored.get("version") != version():
            return {}
        choices = stored.get("choices")
        named = choices.items() if isinstance(choices, dict) else ()
        return {key: name for key, name in named if isinstance(name, str)}


@cache
def tuned() -> Tuned:
    """The process's view of what was measured."""
    return Tuned(cache_directory() / "tuned.json")


def choice_key(
    statement: Statement, known: tuple[bool, ...], target: Target, algorithm: str
) -> str:
    """What a choice is remembered by; `known` says which operands are known before the run."""
    text = "\n".join((repr(statement), repr(known), repr(target), algorithm))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
