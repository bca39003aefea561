"""The files that engines load: weights and graphs, written once and kept in a folder."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from striate.compiler.cache import cache_directory
from striate.models import find
from striate.race import cases, export
from striate.race.cases import Case, UnavailableError

_SOURCES = ("layers", "models")
_WRITERS = tuple(Path(str(module.__file__)) for module in (cases, export))


def default_folder() -> Path:
    """Beside the compiled code: the variable STRIATE_CACHE says where."""
    return cache_directory() / "race"


@dataclass(frozen=True, slots=True)
class Files:
    """A folder of weights, ONNX graphs and converted graphs; all 13 networks take about 3 GB."""

    folder: Path

    def weights(self, name: str) -> Path:
        """The drawn weights of the network `name` in torchvision's names and layouts."""
        from striate.weights import write_safetensors

        return self._made(
            f"{name}.safetensors",
            lambda path: write_safetensors(path, cases.state_dict(name)),
        )

    def onnx(self, name: str) -> Path:
        """The network `name` with its weights as an ONNX model."""

        def write(path: Path) -> None:
            height, width = find(name).input
            graph = cases.network(name).trace((1, height, width, 3))
            path.write_bytes(export.export(graph))

        return self._made(f"{name}.onnx", write)

    def ncnn(self, case: Case) -> tuple[Path, Path]:
        """The `.param` and `.bin` of ncnn for one batch, made by pnnx."""
        stem = f"{case.network}-b{case.batch}.ncnn"
        weights = self._path(f"{stem}.bin")

        def write(path: Path) -> None:
            param, binary = _converted(self.onnx(case.network), case, path.parent)
            shutil.move(binary, weights)
            shutil.move(param, path)

        return self._made(f"{stem}.param", write), weights

    def _path(self, file: str) -> Path:
        return self.folder / _digest() / file

    def _made(self, file: str, write: Callable[[Path], object]) -> Path:
        """`file`, written beside its place and renamed, so that no reader sees half of one."""
        target = self._path(file)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}")
            write(partial)
            partial.replace(target)
        return target


@cache
def _digest() -> str:
    """What the files depend on: the sources that draw and write the networks."""
    package = Path(__file__).parents[1]
    sources = [file for name in _SOURCES for file in sorted((package / name).glob("*.py"))]
    content = b"\0".join(file.read_bytes() for file in (*sources, *_WRITERS))
    return hashlib.sha256(content).hexdigest()[:16]


def _converted(source: Path, case: Case, folder: Path) -> tuple[Path, Path]:
    """What pnnx makes of an ONNX model, in a new folder within `folder`."""
    spec = find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise UnavailableError("pnnx is not installed: pip install --no-deps pnnx")
    program = Path(spec.origin).with_name("pnnx" + (".exe" if os.name == "nt" else ""))
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        os.symlink(source.resolve(), work / "net.onnx")
        size = ",".join(map(str, case.images().shape))
        command = [str(program), "net.onnx", f"inputshape=[{size}]f32", "fp16=0"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        made = work / "net.ncnn.param", work / "net.ncnn.bin"
        if done.returncode or not all(path.is_file() for path in made):
            said = done.stderr.strip()[-300:]
            raise UnavailableError(f"pnnx cannot convert {case.network}: {said}")
        kept = [folder / f"{work.name}{path.suffix}" for path in made]
        for path, place in zip(made, kept, strict=True):
            shutil.move(path, place)
        return kept[0], kept[1]
    finally:
        shutil.rmtree(work, ignore_errors=True)
