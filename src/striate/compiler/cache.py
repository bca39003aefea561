"""Machine code on disk: compiled once, then read, verified and bounded in size.

An entry is one file named by the hash of its key: a magic word, the SHA-256 of key and content, and
the content. Files appear by an atomic rename, so that several processes may share a directory; what
doesn't verify is removed and counts as missing. The time of modification is the time of last use.
"""

import contextlib
import hashlib
import os
import stat
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from striate.compiler.files import TEMPORARY, write_atomically

LIMIT_BYTES = 256 * 2**20
ENVIRONMENT = "STRIATE_CACHE"

_MAGIC = b"striate1"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_SUFFIX = ".code"
# A temporary file this old (seconds) was left by a process that died.
_ABANDONED = 3600.0
# Evicting to less than the limit keeps the next entries from evicting again at once.
_KEEP = 0.9


def cache_directory() -> Path:
    """The user's directory for compiled code; the variable STRIATE_CACHE overrides it."""
    override = os.environ.get(ENVIRONMENT)
    if override:
        return Path(override).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("striate", appauthor=False)) / "code"


@dataclass(frozen=True, slots=True)
class _Entry:
    used: float
    size: int
    path: Path


class CodeCache:
    """Byte strings by key in a directory of bounded size; the least recently used go first.

    No method raises for the sake of the disk: a cache that can't be written only never hits.
    """

    def __init__(self, directory: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes is {limit_bytes}, expected 0 or more")
        self.directory = cache_directory() if directory is None else Path(directory)
        self.limit_bytes = limit_bytes
        # Bytes known to be free for this process to add before it must look at the directory again.
        self._room = 0

    def get(self, key: str) -> bytes | None:
        """The content stored under `key`, or None if there is none that verifies."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        if not self._trusted():
            return None
        content = stored[_HEADER_BYTES:]
        if stored[:_HEADER_BYTES] != _header(key, content):
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store `content` under `key`; content that alone exceeds the limit isn't stored."""
        size = _HEADER_BYTES + len(content)
        if size > self.limit_bytes:
            return
        try:
            # Only the user may write here: what lies in this directory is executed.
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._trusted():
                self._distrust()
                return
            write_atomically(self._path(key), [_header(key, content), content])
        except OSError:
            return
        self._bound(size)

    def size_bytes(self) -> int:
        """The bytes that all entries take on disk."""
        return sum(entry.size for entry in self._entries())

    def clear(self) -> None:
        """Remove every entry."""
        for entry in list(self._entries()):
            _remove(entry.path)

    def _path(self, key: str) -> Path:
        return self.directory / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def _trusted(self) -> bool:
        """Whether no other user can have put code there (always, without POSIX owners)."""
        if not hasattr(os, "getuid"):
            return True
        try:
            status = self.directory.stat()
        except OSError:
            return False
        return status.st_uid in (os.getuid(), 0) and not status.st_mode & stat.S_IWOTH

    def _distrust(self) -> None:
        warnings.warn(
            f"compiled code is not kept in {self.directory}: other users may write there; "
            f"set {ENVIRONMENT} to a directory of your own",
            RuntimeWarning,
            stacklevel=3,
        )

    def _bound(self, added: int) -> None:
        """Evict if need be, looking once for every sixteenth of the limit written."""
        self._room -= added
        if self._room >= 0:
            return
        free = self.limit_bytes - self._evict()
        # Other processes write too: none may fill all that is free without looking.
        self._room = min(free, self.limit_bytes // 16)

    def _evict(self) -> int:
        """Remove the least recently used entries beyond the limit; gives the bytes that remain."""
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total = sum(entry.size for entry in entries)
        if total <= self.limit_bytes:
            return total
        for entry in entries[:-1]:
            if total <= self.limit_bytes * _KEEP:
                break
            _remove(entry.path)
            total -= entry.size
        return total

    def _entries(self) -> Iterator[_Entry]:
        """The stored entries; abandoned temporary files are removed on the way."""
        try:
            found = list(os.scandir(self.directory))
        except OSError:
            return
        now = time.time()
        for item in found:
            try:
                status = item.stat()
            except OSError:
                continue
            if item.name.endswith(_SUFFIX):
                yield _Entry(status.st_mtime, status.st_size, Path(item.path))
            elif item.name.endswith(TEMPORARY) and now - status.st_mtime > _ABANDONED:
                _remove(Path(item.path))


@cache
def code_cache() -> CodeCache:
    """The process's view of the user's directory."""
    return CodeCache()


def _header(key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0" + content)
    return _MAGIC + digest.digest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
