"""What an evaluation has found so far, on disk, so that it can go on after an interruption.

The file has a line of JSON that says what is evaluated, then one for each image. A line is written
whole or, by a process that was killed, in part: what follows the last whole line is not read.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

Guesses = tuple[tuple[int, float], ...]

_MARK = '{"striate": "evaluation"'
_SYNC_SECONDS = 10.0


class JournalError(ValueError):
    """A file that is no journal of an evaluation, and is left as it is."""


class Journal:
    """The file `path`, with the guesses in it for the evaluation that `about` describes.

    `found` are the guesses of each image by its place in the data. If the file is of another
    evaluation it begins anew, and `differs` says in what. Raises OSError, JournalError.
    """

    def __init__(self, path: Path, about: Mapping[str, str], restart: bool = False) -> None:
        self.path = path
        self.found: dict[int, Guesses] = {}
        self.differs: tuple[str, ...] = ()
        head = (json.dumps({"striate": "evaluation", **about}) + "\n").encode()
        content = path.read_bytes() if path.exists() else b""
        mark = _MARK.encode()
        if content[: len(mark)] != mark[: len(content)]:
            raise JournalError(f"{path}: it is no journal of an evaluation; name another file")
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        kept = len(head) if lines and lines[0] == head and not restart else 0
        if kept:
            kept += self._read(lines[1:])
        elif lines and not restart:
            self.differs = _difference(lines[0], about)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if kept else "wb", buffering=0)
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._file.write(head)
        self._synced = time.monotonic()

    def _read(self, lines: list[bytes]) -> int:
        """Take the guesses out of whole lines; how many bytes of them are sound."""
        size = 0
        for line in lines:
            try:
                place, *guesses = json.loads(line)
                found = tuple((int(index), float(share)) for index, share in guesses)
                place = int(place)
            except (ValueError, TypeError):
                break
            if not found:
                break
            self.found[place] = found
            size += len(line)
        return size

    def add(self, place: int, guesses: Guesses) -> None:
        """Keep the guesses of the image at `place`."""
        self._file.write(f"{json.dumps([place, *guesses])}\n".encode())
        self.found[place] = guesses
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sync()
        self._file.close()


def _difference(line: bytes, about: Mapping[str, str]) -> tuple[str, ...]:
    try:
        other = json.loads(line)
    except ValueError:
        return ("its first line",)
    return tuple(key for key, value in about.items() if other.get(key) != value)
