"""Files that are there complete or not at all."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY = ".part"


def write_atomically(
    path: Path, parts: Iterable[bytes | memoryview], *, durable: bool = False
) -> None:
    """Write `parts` to `path` by way of a temporary file beside it. Raises OSError.

    A `durable` file is on the disk before it takes its name, and has the mode of an ordinary new
    file; others are the user's alone.
    """
    with written_atomically(path, durable=durable) as file:
        for part in parts:
            file.write(part)


@contextmanager
def written_atomically(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write into, which becomes `path` when all went well; as `write_atomically`."""
    handle, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name[:40]}.", path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if durable:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
