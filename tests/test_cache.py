"""The code cache: what is stored comes back or is missing, whatever happens to the files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.compiler.cache import CodeCache, cache_directory


def entries(cache: CodeCache) -> list[Path]:
    return sorted(cache.directory.glob("*.code"))


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "deep" / "er")
    assert cache.get("a") is None
    cache.put("a", b"one")
    cache.put("../../b c\n", b"")
    cache.put("a", b"two")
    again = CodeCache(cache.directory)
    assert again.get("a") == b"two"
    assert again.get("../../b c\n") == b""
    assert again.get("b") is None
    assert len(entries(cache)) == 2
    cache.clear()
    assert again.get("a") is None


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_corrupt_entry_is_a_miss_and_removed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cache = CodeCache(tmp_path_factory.mktemp("cache"))
    cache.put("key", bytes(range(64)))
    (path,) = entries(cache)
    stored = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(stored) - 1))
    if data.draw(st.booleans()):
        stored[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del stored[at:]
    path.write_bytes(stored)
    assert cache.get("key") is None
    assert not path.exists()


def test_an_entry_under_another_name_is_a_miss(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path)
    cache.put("a", b"code of a")
    (a,) = entries(cache)
    cache.put("b", b"code of b")
    (b,) = set(entries(cache)) - {a}
    os.replace(a, b)
    assert cache.get("b") is None


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, limit_bytes=10_000)
    for number in range(8):
        cache.put(f"k{number}", bytes(1000))
    for age, path in enumerate(entries(cache)):
        os.utime(path, (time.time() - 100 - age,) * 2)
    assert cache.get("k3") is not None
    assert cache.get("k5") is not None
    for number in range(8, 14):
        cache.put(f"k{number}", bytes(1000))
    assert cache.size_bytes() <= 10_000
    assert cache.get("k3") is not None
    assert cache.get("k5") is not None
    assert cache.get("k13") is not None
    assert len(entries(cache)) >= 7


def test_other_processes_writes_are_bounded_too(tmp_path: Path) -> None:
    caches = [CodeCache(tmp_path, limit_bytes=20_000) for _ in range(3)]
    for number in range(40):
        caches[number % 3].put(f"k{number}", bytes(900))
    assert caches[0].size_bytes() <= 20_000 * (1 + 3 / 16)


def test_content_beyond_the_limit_is_not_stored(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, limit_bytes=500)
    cache.put("a", bytes(400))
    cache.put("b", bytes(500))
    assert cache.get("a") == bytes(400)
    assert cache.get("b") is None
    with pytest.raises(ValueError, match="limit_bytes is -1"):
        CodeCache(tmp_path, limit_bytes=-1)


def test_a_directory_that_cannot_be_made_never_hits(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a directory")
    cache = CodeCache(blocker / "cache")
    cache.put("a", b"one")
    assert cache.get("a") is None
    assert cache.size_bytes() == 0
    cache.clear()


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CodeCache(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    cache.put("a", b"one")
    assert list(tmp_path.iterdir()) == []


def test_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "x.part", tmp_path / "y.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    CodeCache(tmp_path).put("a", b"one")
    assert not old.exists()
    assert new.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_a_directory_open_to_others_is_not_trusted(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "open")
    cache.put("a", b"one")
    assert cache.directory.stat().st_mode & 0o077 == 0
    cache.directory.chmod(0o777)
    assert cache.get("a") is None
    with pytest.warns(RuntimeWarning, match="other users may write there"):
        cache.put("b", b"two")
    cache.directory.chmod(0o700)
    assert cache.get("a") == b"one"
    assert cache.get("b") is None


def test_the_environment_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine" == CodeCache().directory
    monkeypatch.delenv("STRIATE_CACHE")
    assert "striate" in cache_directory().parts


HAMMER = """
import sys
from pathlib import Path
from striate.compiler.cache import CodeCache
cache = CodeCache(Path(sys.argv[1]), limit_bytes=30_000)
bad = 0
for turn in range(400):
    key = f"k{turn % 40}"
    found = cache.get(key)
    bad += found is not None and found != key.encode() * 400
    cache.put(key, key.encode() * 400)
print(bad, "llvmlite" in sys.modules)
"""


def test_processes_share_a_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HAMMER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["0 False"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert CodeCache(tmp_path).size_bytes() <= 30_000 * (1 + 2 / 16)
    assert not list(tmp_path.glob("*.part"))
