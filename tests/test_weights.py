"""Weight files: both forms of torch.save and safetensors, read without executing anything."""

import contextlib
import json
import os
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_files import Call, Global, Instance, Stored, archive, pickled, stream, tensor

from striate.weights import WeightsError, read, write_safetensors

FORMS = {"stream": stream, "archive": archive}
GOLDEN = Path(__file__).parents[2] / "shared"

form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def load(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read(path)


@form
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path, form, protocol):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    state = OrderedDict([("a.weight", tensor(values)), ("a.bias", tensor(values[0, 0]))])
    found = load(tmp_path, form(state, protocol=protocol))
    assert list(found) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(found["a.weight"], values, strict=True)
    np.testing.assert_array_equal(found["a.bias"], values[0, 0], strict=True)


@form
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "i2", "i1", "u1", "b1"])
def test_element_types_stay(tmp_path, form, dtype):
    values = np.array([0, 1, 1, 100, 0]).astype(dtype)
    found = load(tmp_path, form({"a": tensor(values), "b": tensor(values[3])}))
    np.testing.assert_array_equal(found["a"], values, strict=True)
    assert found["b"].shape == ()
    assert found["b"] == values[3]


@form
def test_half_precisions_widen(tmp_path, form):
    half = np.array([1.5, -0.25, 65504], np.float16)
    brain = np.array([0x3F80, 0xC020, 0x7F80], np.uint16)
    found = load(tmp_path, form({"h": tensor(half), "b": tensor(brain, kind="bf16")}))
    np.testing.assert_array_equal(found["h"], half.astype(np.float32), strict=True)
    np.testing.assert_array_equal(found["b"], np.float32([1, -2.5, np.inf]), strict=True)


@form
def test_views_share_a_storage(tmp_path, form):
    base = np.arange(60, dtype=np.float32)
    whole = Stored("7", base)
    state = {
        "whole": tensor(base, storage=whole),
        "part": tensor(None, storage=whole, offset=10, shape=(2, 5), strides=(5, 1)),
        "turned": tensor(None, storage=whole, shape=(4, 15), strides=(1, 4)),
        "every": tensor(None, storage=whole, offset=1, shape=(6,), strides=(10,)),
        "spread": tensor(None, storage=whole, offset=3, shape=(2, 3), strides=(0, 1)),
        "one": tensor(None, storage=whole, offset=59, shape=(1, 1), strides=(77, 5)),
        "none": tensor(None, storage=whole, shape=(0, 3), strides=(3, 1)),
    }
    found = load(tmp_path, form(state))
    np.testing.assert_array_equal(found["part"], base[10:20].reshape(2, 5))
    np.testing.assert_array_equal(found["turned"], base.reshape(15, 4).T)
    np.testing.assert_array_equal(found["every"], base[1::10])
    np.testing.assert_array_equal(found["spread"], [base[3:6], base[3:6]])
    np.testing.assert_array_equal(found["one"], [[59]])
    assert found["none"].shape == (0, 3)
    found["spread"][0] = 0
    np.testing.assert_array_equal(found["spread"][1], base[3:6])


@form
def test_empty_storage(tmp_path, form):
    found = load(tmp_path, form({"a": tensor(np.zeros((0, 4), np.float32)), "b": tensor([1.5])}))
    assert found["a"].shape == (0, 4)
    assert found["b"] == 1.5


def test_a_stored_archive_is_mapped_not_copied(tmp_path):
    values = np.arange(1000, dtype=np.float32)
    mapped = 0
    # torch pads so that elements lie at a multiple of 64; here one of four names puts them at 4.
    for pad in range(4):
        state = {"a": tensor(values, storage=Stored("0", values))}
        found = load(tmp_path, archive(state, root="r" * (pad + 1) + "/"))["a"]
        np.testing.assert_array_equal(found, values)
        assert found.flags.aligned
        mapped += not found.flags.owndata
        found[0] = 5.0
        assert read(tmp_path / "weights.pth")["a"][0] == 0.0, "the file changed"
    assert mapped == 1


def test_reading_a_big_archive_takes_milliseconds(tmp_path):
    path = tmp_path / "big.pth"
    _sparse_archive(path, elements=140_000_000)
    start = time.process_time()
    found = read(path)
    seconds = time.process_time() - start
    assert found["a"].nbytes == 560_000_000
    assert seconds < 0.1


def _sparse_archive(path: Path, elements: int) -> None:
    """The zip form with one storage of zeros that takes no room on the disk."""
    stored = Stored("0", np.zeros(0, np.float32), count=elements)
    state = {"a": tensor(None, storage=stored, shape=(elements,), strides=(1,))}
    size, name = elements * 4, "r/data/0"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("r/data.pkl", pickled(state)[0])
        assert file.fp is not None
        info = zipfile.ZipInfo(name)
        info.header_offset, info.file_size, info.compress_size = file.fp.tell(), size, size
        info.CRC = 0
        # torch pads with an extra field so that elements are aligned.
        pad = -(file.fp.tell() + len(info.FileHeader()) + 4) % 64
        info.extra = struct.pack("<HH", 0x4246, pad) + bytes(pad)
        file.fp.write(info.FileHeader())
        file.fp.seek(size - 1, os.SEEK_CUR)
        file.fp.write(b"\0")
        file.filelist.append(info)
        file.start_dir = file.fp.tell()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", ["little", "big", None])
def test_byte_orders_and_compression(tmp_path, compression, order):
    values = np.linspace(-1, 1, 300, dtype=np.float32).reshape(20, 15)
    half = np.array([0x3F80, 0xC020], np.uint16)
    state = {"a": tensor(values), "b": tensor(half, kind="bf16"), "n": tensor(np.int64(3))}
    found = load(tmp_path, archive(state, order=order, compression=compression))
    np.testing.assert_array_equal(found["a"], values, strict=True)
    np.testing.assert_array_equal(found["b"], np.float32([1, -2.5]), strict=True)
    np.testing.assert_array_equal(found["n"], np.int64(3), strict=True)
    assert found["a"].dtype.isnative


def test_a_stream_is_little_endian_whatever_the_machine_that_wrote_it(tmp_path):
    found = load(tmp_path, stream({"a": tensor(np.float32([1, 2]))}, little=False))
    np.testing.assert_array_equal(found["a"], [1, 2])


@form
def test_parameters_and_other_rebuilders(tmp_path, form):
    inner = tensor(np.float32([1, 2]))
    utils = "torch._utils"
    old = Call(Global(utils, "_rebuild_tensor"), Stored("o", np.float32([7, 8, 9])), 1, (2,), (1,))
    typed = Global("torch", "int16")
    bits = Stored("u", np.frombuffer(np.int16([-1, 300]).tobytes(), np.uint8), "UntypedStorage")
    newest = (bits, 0, (2,), (1,), False, OrderedDict(), typed)
    state = {
        "p": Call(Global(utils, "_rebuild_parameter"), inner, True, OrderedDict()),
        "s": Call(Global(utils, "_rebuild_parameter_with_state"), inner, True, OrderedDict(), {}),
        "o": old,
        "n": Call(Global(utils, "_rebuild_tensor_v3"), *newest),
        "t": Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            Global(utils, "_rebuild_tensor_v2"),
            Global("torch", "Tensor"),
            inner.arguments,
            {},
        ),
    }
    found = load(tmp_path, form(state))
    assert {name: array.tolist() for name, array in found.items()} == {
        "p": [1, 2],
        "s": [1, 2],
        "o": [8, 9],
        "n": [-1, 300],
        "t": [1, 2],
    }


def checkpoint(**more: object) -> dict[str, object]:
    """What a training run saves beside its weights."""
    numpy = Global("numpy.core.multiarray", "scalar")
    kind = Call(Global("numpy", "dtype"), "f8", False, True, state=(3, "<", None, -1))
    return {
        "args": Instance(Global("argparse", "Namespace"), {"lr": 0.1, "device": "cuda"}),
        "epoch": 3,
        "best": Call(numpy, kind, b"12345678"),
        "momentum": tensor(np.float32([9])),
        "device": Call(Global("torch", "device"), "cpu"),
        "folder": Call(Global("pathlib", "PosixPath"), "/", "x"),
        "config": Instance(Global("somewhere.config", "Config"), {"deep": 1}),
        "tags": {"a", "b"},
        "frozen": frozenset([1]),
        "history": Call(Global("collections", "defaultdict"), Global("builtins", "list")),
        ("a", "tuple"): 2**70,
        **more,
    }


@form
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", "state_dict_ema"])
def test_training_checkpoints(tmp_path, form, protocol, wrapper):
    weights = {"module.conv.weight": tensor(np.float32([[1]])), "module.conv.bias": tensor([2.0])}
    found = load(tmp_path, form(checkpoint(**{wrapper: weights}), protocol=protocol))
    assert list(found) == ["conv.weight", "conv.bias"]


@form
def test_averaged_weights_come_first_and_lose_their_counter(tmp_path, form):
    plain = {"module.a": tensor([1.0])}
    averaged = {"n_averaged": tensor(np.int64(5)), "module.module.a": tensor([2.0])}
    found = load(tmp_path, form(checkpoint(model=plain, model_ema=averaged)))
    assert {name: array.tolist() for name, array in found.items()} == {"a": [2.0]}


@form
def test_nested_wrappers_and_partial_prefixes(tmp_path, form):
    inner = {"state_dict": {"model.conv1.weight": tensor([1.0]), "model.fc.bias": tensor([2.0])}}
    assert list(load(tmp_path, form({"model": inner}))) == ["conv1.weight", "fc.bias"]
    mixed = {"module.a": tensor([1.0]), "b": tensor([2.0])}
    assert list(load(tmp_path, form(mixed))) == ["module.a", "b"]


@form
def test_old_densenet_names(tmp_path, form):
    names = ["features.denseblock1.denselayer2.norm.1.weight", "features.norm.1.weight"]
    found = load(tmp_path, form({name: tensor([1.0]) for name in names}))
    assert list(found) == ["features.denseblock1.denselayer2.norm1.weight", names[1]]


@form
def test_self_reference_ends(tmp_path, form):
    state: dict[str, object] = {"a": tensor([1.0])}
    state["model"] = state
    assert list(load(tmp_path, form(state))) == ["a"]


# Written once: the names of storages, and so the length, differ from one writing to the next.
UNDAMAGED = [
    form(checkpoint(model={"a.weight": tensor(np.ones((3, 2), np.float32))}))
    for form in FORMS.values()
]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_end_in_the_one_error(tmp_path_factory, data):
    """Whatever byte is changed or cut away, the answer is an array or a WeightsError."""
    content = bytearray(data.draw(st.sampled_from(UNDAMAGED)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    with contextlib.suppress(WeightsError):
        assert all(isinstance(array, np.ndarray) for array in read(path).values())


def test_safetensors_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    state = {
        "w": rng.normal(size=(3, 4, 5)).astype(np.float32),
        "turned": rng.normal(size=(6, 4)).astype(np.float32).T,
        "d": rng.normal(size=3),
        "n": np.array(7),
        "flag": np.array([True, False]),
        "none": np.zeros((0, 2), np.float32),
        "big": np.arange(3, dtype=">i4"),
    }
    path = write_safetensors(tmp_path / "w.safetensors", state, {"model": "test"})
    found = read(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        native = array.astype(array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found[name], native, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "w.safetensors", {"a": np.float32([1])})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"w\.safetensors: cannot be written: .*No space left"):
        write_safetensors(path, {"a": np.float32([2])})
    assert read(path)["a"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_writing_refuses_what_the_format_lacks(tmp_path):
    with pytest.raises(WeightsError, match="'c' of type complex128"):
        write_safetensors(tmp_path / "w.safetensors", {"c": np.array([1j])})
    with pytest.raises(WeightsError, match="cannot be written: No such file"):
        write_safetensors(tmp_path / "nowhere" / "w.safetensors", {"a": np.float32([1])})
    assert not list(tmp_path.iterdir())


def test_safetensors_half_precisions_and_prefixes(tmp_path):
    content = struct.pack("<2H", 0x3F80, 0xC020) + np.float16(1.5).tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "module.b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "module.h": {"dtype": "F16", "shape": [], "data_offsets": [4, 6]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    found = read(path)
    np.testing.assert_array_equal(found["b"], np.float32([1, -2.5]), strict=True)
    np.testing.assert_array_equal(found["h"], np.float32(1.5), strict=True)


@pytest.mark.skipif(not (GOLDEN / "weights").is_dir(), reason="needs the golden files")
def test_a_published_file():
    found = read(GOLDEN / "weights" / "mobilenet_v2-b0353104.pth")
    manifest = json.loads((GOLDEN / "golden" / "manifest.json").read_text())["mobilenet_v2"]
    shapes = {name: tuple(shape) for name, shape in manifest["state_dict"].items()}
    assert {name: array.shape for name, array in found.items()} == shapes
    assert found["features.1.conv.0.1.num_batches_tracked"].dtype == np.int64


def test_reading_a_pth_loads_no_heavy_library(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(archive({"a": tensor([1.0])}))
    code = f"import sys, striate.weights as w; w.read({str(path)!r}); print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.split())
    assert "striate.weights" in loaded
    assert not loaded & {"llvmlite", "httpx", "rich", "safetensors", "platformdirs"}
