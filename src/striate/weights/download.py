"""Downloads to trust: resumed where they broke off, checked, and moved in place whole."""

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import httpx

from striate.weights.catalogue import hash_prefix
from striate.weights.errors import WeightsError

# Attempts in a row that bring nothing new; seconds of pause that grow between them.
_ATTEMPTS = 4
_PAUSE = 0.5
_HOPELESS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class Report(Protocol):
    """Told how many bytes of how many (None: unknown) have arrived."""

    def __call__(self, done: int, total: int | None) -> None: ...


class _BrokenError(Exception):
    """The connection failed in a way that another attempt may mend."""


def download(url: str, target: Path, *, progress: bool | None = None) -> Path:
    """Fetch `url` to `target`; its content is checked against the hash in the target's name.

    What has arrived is kept in `target.part`, and a later call goes on from there. Several
    processes may ask for the same file: one fetches, the others wait for it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(target.name + ".lock")), _bar(target.name, progress) as report:
            if not target.is_file():
                _fetch(url, target, report)
    except OSError as error:
        raise WeightsError(
            f"{target}: cannot be written: {error.strerror or error}; "
            "the environment variable STRIATE_CACHE chooses another folder"
        ) from error
    return target


def _fetch(url: str, target: Path, report: Report) -> None:
    part = target.with_name(target.name + ".part")
    resumed = part.exists() and part.stat().st_size > 0
    _transfer(url, part, report)
    expected, found = hash_prefix(target.name), _sha256(part)
    if not found.startswith(expected) and resumed:
        # The piece kept from last time may have been of another file: once more from the start.
        part.unlink()
        _transfer(url, part, report)
        found = _sha256(part)
    if not found.startswith(expected):
        size = part.stat().st_size
        part.unlink()
        raise WeightsError(
            f"{url}: what arrived ({size} bytes) has the SHA-256 {found[:16]}..., but the file's "
            f"name promises {expected}; it was thrown away. Try again, or give a path to the file"
        )
    os.replace(part, target)


def _transfer(url: str, part: Path, report: Report) -> None:
    """Bring `part` to its full length, in as many attempts as bring it further."""
    timeout = httpx.Timeout(30.0, connect=10.0)
    with httpx.Client(follow_redirects=True, timeout=timeout) as client:
        furthest, failures = 0, 0
        while True:
            try:
                return _attempt(client, url, part, report)
            except (httpx.TransportError, _BrokenError) as error:
                kept = part.stat().st_size if part.exists() else 0
                failures = failures + 1 if kept <= furthest else 1
                furthest = max(furthest, kept)
                if isinstance(error, _HOPELESS) or failures == _ATTEMPTS:
                    raise WeightsError(_advice(url, part, error, kept)) from error
                time.sleep(_PAUSE * (failures - 1))
            except httpx.InvalidURL as error:
                raise WeightsError(f"{url}: not an address: {error}") from error


def _advice(url: str, part: Path, error: Exception, kept: int) -> str:
    reason = str(error) or type(error).__name__
    if kept:
        after = f"{kept} bytes are kept, and the same command goes on from there"
    else:
        target = part.with_suffix("")
        after = f"without a network, give a path to the file or put it at {target}"
    return f"{url}: the download failed ({reason}); {after}"


def _attempt(client: httpx.Client, url: str, part: Path, report: Report) -> None:
    kept = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if kept:
        headers["Range"] = f"bytes={kept}-"
    with client.stream("GET", url, headers=headers) as answer:
        start, total = _span(answer.headers.get("Content-Range", ""))
        if answer.status_code == 416 and kept:
            if total == kept:
                return
            part.unlink()
            raise _BrokenError("the server knows no such part of the file")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise _BrokenError(f"the server answers {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise WeightsError(
                f"{url}: the server answers {answer.status_code} {answer.reason_phrase}; "
                "give a path to the file instead"
            )
        goes_on = answer.status_code == 206 and start == kept
        if answer.status_code == 206 and not goes_on:
            part.unlink(missing_ok=True)
            raise _BrokenError("the server sends another part of the file than was asked for")
        if not goes_on:
            kept, total = 0, _number(answer.headers.get("Content-Length", ""))
        with part.open("ab" if goes_on else "wb") as file:
            # Pieces as they arrive: one of fixed size would be lost where the connection breaks.
            for piece in answer.iter_raw():
                kept += file.write(piece)
                report(kept, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and kept < total:
        raise _BrokenError(f"it ended after {kept} of {total} bytes")


def _span(content_range: str) -> tuple[int | None, int | None]:
    """First byte and whole length in `bytes 5-9/10`; None for what it does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", content_range)
    return (_number(match[1] or ""), _number(match[2])) if match else (None, None)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _bar(name: str, wanted: bool | None) -> Iterator[Report]:
    """A progress bar on the standard error, by default only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    shown = console.is_terminal if wanted is None else wanted
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold `path` against other processes and threads; it is freed even where its holder dies."""
    with path.open("a+b") as file:
        _acquire(file)
        try:
            yield
        finally:
            _release(file)


if sys.platform == "win32":
    import msvcrt

    def _acquire(file: IO[bytes]) -> None:
        while True:
            with contextlib.suppress(OSError):
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            time.sleep(0.1)

    def _release(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _acquire(file: IO[bytes]) -> None:
        # A file system without locks (some network folders) leaves the download unguarded:
        # at worst two processes fetch, and the hash tells.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)

    def _release(file: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
