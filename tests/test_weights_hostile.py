"""Bad weight files: each ends in one clear WeightsError that names the file; nothing runs."""

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from weight_files import (
    Call,
    Global,
    Instance,
    Stored,
    archive,
    archive_of,
    pickled,
    stream,
    tensor,
)

from striate.weights import WeightsError, read


class Boom:
    """Runs a shell command where a reader lets it."""

    def __reduce__(self):
        return os.system, ("touch executed-by-a-pickle",)


class Evaluates:
    def __reduce__(self):
        return eval, ("open('executed-by-a-pickle', 'w').close()",)


def raw(body: bytes) -> bytes:
    """An archive whose pickle is `body`."""
    return archive_of(b"\x80\x02" + body, {})


GOOD = {"a": tensor(np.ones((4, 4), np.float32)), "b": tensor(np.ones(3, np.float32))}


def cut(content: bytes, keep: float) -> bytes:
    return content[: int(len(content) * keep)]


def one(**changed: object) -> dict[str, Call]:
    """A state dict of one tensor on a storage of 4 floats, with some part of it changed."""
    parts = {"offset": 0, "shape": (2, 2), "strides": (2, 1), **changed}
    storage = parts.pop("storage", Stored("0", np.ones(4, np.float32)))
    return {"a": tensor(None, storage=storage, **parts)}


def zip_without(name: str) -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(archive(one()))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for info in source.infolist():
            if not info.filename.endswith(name):
                file.writestr(info, source.read(info))
    return target.getvalue()


def encrypted() -> bytes:
    content = bytearray(archive(one()))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(signature, start + 4)
    return bytes(content)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def flipped_middle(content: bytes) -> bytes:
    """A byte of the pickle in an archive changed: its checksum tells."""
    place = content.find(b"_rebuild_tensor_v2")
    return content[:place] + b"X" + content[place + 1 :]


HUGE = (1 << 40).to_bytes(8, "little")
MODEL = Instance(Global("torchvision.models.resnet", "ResNet"), {"training": True})

# name: (content, what the message says)
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "text": (
        b"these are not weights at all, only words in a file",
        "neither .pth nor .safetensors",
    ),
    "short": (b"\x80\x02\x8a\x0a", "only 4 bytes"),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "compressed by gzip"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "an image"),
    "tar": (tar(), "a tar archive"),
    "npz": (numpy_archive(), "NumPy's .npz"),
    "plain pickle": (pickle.dumps({"a": list(range(40))}), "a plain pickle"),
    "other zip": (archive_of(b".", {}, root="x/").replace(b"data.pkl", b"data.xyz"), "no data.pkl"),
    "torchscript": (archive(one(), extra={"constants.pkl": b"x"}), "a TorchScript program"),
    "os.system in a stream": (stream({"hook": Boom(), **GOOD}), r"asks to call '\w+.system'"),
    "os.system in an archive": (archive({"hook": Boom(), **GOOD}), r"asks to call '\w+.system'"),
    "eval": (archive({"hook": Evaluates(), **GOOD}), r"asks to call '\w+.eval'"),
    "getattr": (
        archive({"a": Call(Global("builtins", "getattr"), "x", "y")}),
        "asks to call 'builtins.getattr'",
    ),
    "a look-alike": (
        archive({"a": Call(Global("torch._utils", "_rebuild_tensor_v2.x"), 1)}),
        "asks to call 'torch._utils._rebuild_tensor_v2.x'",
    ),
    "a call through a rebuilder": (
        archive({"a": Call(Global("torch._tensor", "_rebuild_from_type_v2"), os.system, 1, (), 2)}),
        r"builds a tensor by '\w+.system'",
    ),
    "old class opcode": (raw(b"(S'x'\nios\nsystem\n."), "the opcode STRING"),
    "instance opcode": (raw(b"(ios\nsystem\n."), "the opcode INST"),
    "extension registry": (raw(b"\x82\x01."), "the opcode EXT1"),
    "unknown opcode": (raw(b"\xff."), "unknown opcode 0xff"),
    "stack underflow": (raw(b"R."), "corrupt or cut off"),
    "no stop": (raw(b"}"), "corrupt or cut off"),
    "huge string": (raw(b"\x8d" + HUGE + b"."), "corrupt or cut off"),
    "huge memo index": (raw(b"}r\xff\xff\xff\xff0j\xfe\xff\xff\xff."), "corrupt or cut off"),
    "deep nesting": (raw(b")" + b"\x85" * 300_000 + b"."), "it holds a tuple"),
    "deep key": (raw(b"}(" + b")" + b"\x85" * 300_000 + b"K\x01u."), "an empty dict"),
    "whole model": (archive(MODEL), "a pickled torchvision.models.resnet.ResNet object"),
    "whole model in a wrapper": (archive({"model": MODEL}), "no state dict; .*keys 'model'"),
    "list": (stream([1, 2]), "no state dict; it holds a list"),
    "single tensor": (archive(GOOD["a"]), r"a single tensor of shape \(4, 4\)"),
    "no tensors": (archive({"lr": 0.1, "epoch": 3}), "no state dict; .*'lr', 'epoch'"),
    "empty dict": (archive(OrderedDict()), "an empty dict"),
    "cut stream pickle": (cut(stream(GOOD), 0.3), "corrupt or cut off"),
    "cut stream storage": (stream(GOOD)[:-5], "cut off: storage 2 of 2 ends at byte"),
    "cut archive": (cut(archive(GOOD), 0.6), "zip archive is damaged or cut off"),
    "changed archive": (flipped_middle(archive(GOOD)), "zip archive is damaged"),
    "encrypted": (encrypted(), "encrypted"),
    "missing storage": (zip_without("data/0"), "storage '0' is missing"),
    "short storage": (
        archive(one(storage=Stored("0", np.ones(2, np.float32), count=4))),
        "storage '0' has 8 bytes, its tensors need 16",
    ),
    "wrong count in a stream": (
        stream(one(storage=Stored("0", np.ones(8, np.float32), count=4))),
        "storage '0' has 8 elements where its tensors say 4",
    ),
    "reads past its storage": (archive(one(shape=(2, 3))), "reads element 4 of a storage of 4"),
    "offset past its storage": (archive(one(offset=1)), "reads element 4 of a storage of 4"),
    "negative stride": (archive(one(strides=(-2, 1))), "corrupt"),
    "negative size": (archive(one(shape=(-2, 2))), "corrupt"),
    "more sizes than strides": (archive(one(strides=(1,))), "corrupt"),
    "sizes that are no numbers": (archive(one(shape=("2", 2))), "corrupt"),
    "expansion bomb": (
        archive(one(shape=(1 << 20, 1 << 20), strides=(0, 0))),
        "spread over a storage of only 4",
    ),
    "unknown storage": (
        archive(one(storage=Stored("0", np.ones(4, np.uint8), "QInt8Storage"))),
        "elements of the type 'torch.QInt8Storage'",
    ),
    "unknown byte order": (archive(one(), order="middle"), "byte order is b'middle'"),
    "safetensors cut": (b"\x40\0\0\0\0\0\0\0" + b'{"a":' + bytes(30), "not a sound safetensors"),
    "safetensors header size": (b"\xff" * 7 + b"\x7f{}" + bytes(30), "not a sound safetensors"),
    "safetensors without tensors": (
        b"\x10\0\0\0\0\0\0\0" + b'{"__metadata__":{}}'[:16].ljust(16) + bytes(30),
        "not a sound safetensors",
    ),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_bad_file(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad file.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["bad file.pth"]


def test_the_hostile_pickles_would_run_elsewhere(tmp_path, monkeypatch):
    """The table's command is real: Python's own reader executes it."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled({"a": Evaluates()})[0])
    assert Path("executed-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["missing.pth", "folder"])
def test_places_that_are_no_files(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match=rf"{name}: (no such file|it is a folder)"):
        read(tmp_path / name)


def test_compression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("striate.weights.pth._MOST_INFLATED", 1000)
    path = tmp_path / "bomb.pth"
    state = {"a": tensor(np.zeros(1000, np.float32))}
    path.write_bytes(archive(state, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match=r"'archive/data/.*' unpacks to 4000 bytes"):
        read(path)


def test_an_unread_name_alone_does_no_harm(tmp_path):
    """A reference is only text; refused is what would call it."""
    path = tmp_path / "a.pth"
    path.write_bytes(archive({"hook": Global("os", "system"), **GOOD}))
    assert list(read(path)) == ["a", "b"]


def test_the_message_counts_as_a_value_error():
    assert issubclass(WeightsError, ValueError)
