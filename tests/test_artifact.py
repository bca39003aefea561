"""Programs on disk: read back they compute the same bits, damaged they are refused by name."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_graphs import Weights, inputs_for

import striate
from striate import layers, models
from striate.compiler import compile_graph, kept, program_of
from striate.compiler.cache import CodeCache, code_cache
from striate.compiler.storage import StorageError, dumps, loads
from striate.images import class_names
from striate.network.graph import Graph, Input, Parameter
from striate.runtime import Executable
from striate.weights.artifact import ArtifactError, is_artifact


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodeCache:
    """A code cache of the test's own."""
    mine = CodeCache(tmp_path / "code")
    monkeypatch.setattr(kept, "code_cache", lambda: mine)
    return mine


def network(seed: int = 0, features: int = 20, dead: bool = False) -> Graph:
    w, x = Weights(seed), Input("images", (1, 9, 8, 16))
    y = striate.relu(w.normalise(w.convolve(x, features, padding=1)))
    y = w.convolve(y, 7, padding=1, bias=True)
    return Graph((x,), (y if dead else striate.relu(y),))


def run(graph: Graph) -> np.ndarray:
    (y,) = Executable(program_of(graph), 2)(*inputs_for(graph))
    return y


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("the graph was compiled again")


def test_a_network_alike_is_not_compiled_again(
    cache: CodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(network())
    other = Executable(compile_graph(network(1)), 2)(*inputs_for(network(1)))[0]
    monkeypatch.setattr("striate.compiler.compile.compile_graph", forbidden)
    np.testing.assert_array_equal(run(network()), first)
    # Other numbers in the weights, the same program.
    np.testing.assert_array_equal(run(network(1)), other)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("change", [{"features": 24}, {"dead": True}])
def test_another_network_is_compiled(
    cache: CodeCache, monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
) -> None:
    run(network())
    monkeypatch.setattr("striate.compiler.compile.compile_graph", forbidden)
    with pytest.raises(AssertionError, match="compiled again"):
        run(network(**change))


def test_what_else_a_program_depends_on_is_in_its_key() -> None:
    w, x = Weights(), Input("x", (1, 9, 8, 16))
    weight = w.array(3, 3, 16, 16)

    def of(first: np.ndarray, second: np.ndarray, name: str = "x") -> str:
        x = Input(name, (1, 9, 8, 16))
        y = striate.conv2d(x, Parameter("a", first), padding=1)
        y = striate.conv2d(y, Parameter("b", second), padding=1)
        return kept.signature(Graph((x,), (y,)))

    assert of(weight, weight.copy()) == of(weight.copy(), weight)
    assert of(weight, weight) != of(weight, weight.copy())
    turned = np.ascontiguousarray(weight.transpose(3, 2, 0, 1)).transpose(2, 3, 1, 0)
    assert of(weight, turned) != of(weight, weight.copy())
    assert of(weight, weight) != of(weight, weight, "y")
    assert x.shape == (1, 9, 8, 16)


def test_a_damaged_entry_is_compiled_anew(cache: CodeCache) -> None:
    first = run(network())
    for entry in cache.directory.iterdir():
        entry.write_bytes(entry.read_bytes()[:-1])
    np.testing.assert_array_equal(run(network()), first)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no program of this version"),
        (b"junk", "no program of this version"),
        (pickle.dumps(Evil()), "builtins.exec is none of the classes of a program"),
        (pickle.dumps({"a": 1}), "no program of this version"),
        (pickle.dumps(("form", 1)), "no program of this version: it has another form"),
        (pickle.dumps(Path("x")), "is none of the classes of a program"),
    ],
)
def test_bytes_that_are_no_program_are_refused(content: bytes, what: str) -> None:
    with pytest.raises(StorageError, match=what):
        loads(content)


def test_a_stored_program_says_that_its_ir_is_gone() -> None:
    program = loads(dumps(compile_graph(network())))
    with pytest.raises(ValueError, match="its IR is not kept"):
        _ = program.kernels[0].ir


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, striate.Module]:
    """A small network in a file."""
    path = tmp_path_factory.mktemp("compiled") / "small.striate"
    module = models.create("squeezenet1_1")
    assert striate.save(module, path, (1, 64, 48, 3)) == path
    return path, module


def test_a_compiled_network_gives_the_same_bits(compiled: tuple[Path, striate.Module]) -> None:
    path, module = compiled
    x = np.random.default_rng(0).uniform(-1, 1, (1, 64, 48, 3)).astype(np.float32)
    for threads in (1, 2, 3):
        loaded = striate.load(path, threads=threads)
        np.testing.assert_array_equal(loaded(x), module(x))
    assert loaded.shape == (1, 64, 48, 3)
    assert loaded.name == "squeezenet1_1"
    assert loaded.preset == module.preset
    # Its constants are the file's, not a copy of them.
    assert isinstance(loaded.executable.constants, np.memmap)
    with pytest.raises(ValueError, match=r"input has shape \(1, 3, 3, 3\), expected"):
        loaded(x[:, :3, :3])


def test_loading_needs_no_llvm(compiled: tuple[Path, striate.Module]) -> None:
    code = (
        "import sys, numpy, striate\n"
        f"network = striate.load({str(compiled[0])!r})\n"
        "network(numpy.zeros(network.shape, numpy.float32))\n"
        "assert 'llvmlite.binding' not in sys.modules\n"
        "assert 'striate.compiler.compile' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_any_module_can_be_saved(tmp_path: Path) -> None:
    module = layers.Sequential(layers.Conv2d(3, 5, 3), layers.ReLU())
    path = striate.save(module, tmp_path / "own", (2, 9, 9, 3), algorithm="direct")
    x = np.ones((2, 9, 9, 3), np.float32)
    np.testing.assert_array_equal(striate.load(path)(x), module(x, algorithm="direct"))
    assert is_artifact(path)
    assert not is_artifact(tmp_path)
    assert not is_artifact("resnet18")


def damaged(content: bytes, how: str) -> bytes:
    if how == "another file":
        return b"PK" + content
    if how == "cut in the head":
        return content[:500]
    if how == "cut in the constants":
        return content[:-4]
    if how == "a bit of the head":
        return content[:200] + bytes([content[200] ^ 1]) + content[201:]
    assert how == "an immense head"
    return content[:8] + b"\xff" * 8 + content[16:]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("another file", "it is no compiled network"),
        ("cut in the head", "it is damaged; compile the network anew"),
        ("cut in the constants", "it is cut short; compile the network anew"),
        ("a bit of the head", "it is damaged"),
        ("an immense head", "it is damaged"),
    ],
)
def test_a_damaged_file_is_refused(
    compiled: tuple[Path, striate.Module], tmp_path: Path, how: str, message: str
) -> None:
    path = tmp_path / "bad.striate"
    path.write_bytes(damaged(compiled[0].read_bytes(), how))
    with pytest.raises(ArtifactError, match=f"bad.striate: {message}"):
        striate.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": "Plan9 pdp11"}, "it was compiled for Plan9 pdp11, this is .*; compile"),
        ({"cpu": "other", "features": "+sse2,+amx-magic"}, "a CPU with amx-magic, which this"),
    ],
)
def test_a_file_for_another_machine_is_refused(
    compiled: tuple[Path, striate.Module],
    tmp_path: Path,
    change: dict[str, str],
    message: str,
) -> None:
    import hashlib

    content = compiled[0].read_bytes()
    size = int.from_bytes(content[8:16], "little")
    line, _, rest = content[48 : 48 + size].partition(b"\n")
    head = json.dumps({**json.loads(line), **change}).encode() + b"\n" + rest
    path = tmp_path / "other.striate"
    fixed = content[:8] + len(head).to_bytes(8, "little") + hashlib.sha256(head).digest()
    path.write_bytes(fixed + head)
    with pytest.raises(ArtifactError, match=message):
        striate.load(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    module = layers.Sequential(layers.Conv2d(3, 5, 3))
    with pytest.raises(ArtifactError, match="cannot be written: No such file"):
        striate.save(module, tmp_path / "none" / "x.striate", (1, 9, 9, 3))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        striate.save(module, tmp_path / "folder", (1, 9, 9, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_batches_of_a_compiled_network_are_filled_up(tmp_path: Path) -> None:
    from striate.vision.classification import of_compiled

    module = models.create("squeezenet1_1")
    path = striate.save(module, tmp_path / "two.striate", (2, 64, 64, 3))
    classifier = of_compiled(striate.load(path))
    x = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(classifier.network(x), module(x), atol=1e-5)
    assert len(classifier.labels) == len(class_names())


def test_the_process_has_one_cache() -> None:
    assert code_cache() is code_cache()
