"""Compiled networks as files: machine code, packed weights, and what to do with an image.

    magic | bytes of the head | SHA-256 of the head | head | zeros up to a page | constants

The constants are mapped, not read: loading takes milliseconds, and processes share the memory. The
file holds machine code: load what you trust, as with any program.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from striate.compiler.files import write_atomically
from striate.compiler.storage import StorageError, dumps, loads
from striate.compiler.target import Target, fingerprint
from striate.notation.ir import Shape
from striate.runtime import Executable
from striate.weights.presets import STANDARD, PresetData

if TYPE_CHECKING:
    from striate.layers import Module

Array = NDArray[np.float32]

SUFFIX = ".striate"
_MAGIC = b"striate\x01"
_FIXED_BYTES = len(_MAGIC) + 8 + 32
_PAGE = 4096


class ArtifactError(ValueError):
    """A file that is no compiled network, or not one for this machine."""


@dataclass(frozen=True, slots=True)
class CompiledNetwork:
    """A network as machine code for images float32`shape`, `[b,x,y,i]`; call it with an array.

    `name` is the network's, `preset` how images are prepared for its weights.
    """

    name: str
    preset: PresetData
    executable: Executable

    @property
    def shape(self) -> Shape:
        """The shape of its input."""
        return self.executable.program.inputs[0][1]

    def __call__(self, input: Array) -> Array:
        """The network's output for `input`. Raises as an Executable does."""
        (output,) = self.executable(input)
        return output


def save(
    module: "Module",
    path: str | os.PathLike[str],
    shape: Shape,
    *,
    algorithm: str = "auto",
    exact: bool = False,
) -> Path:
    """Compile `module` for images of `shape`, `[b,x,y,i]`, into the file `path`.

    `algorithm` and `exact` are what `Module.compile` takes.

    The file is complete or not there. Raises ArtifactError where the disk refuses, and what
    compiling raises.
    """
    target = Path(path)
    executable = module.compile(shape, algorithm=algorithm, exact=exact)
    content = dumps(replace(executable.program, preparation=None))
    preset = getattr(module, "preset", None)
    known = preset if isinstance(preset, PresetData) else STANDARD
    about = {
        "name": getattr(module, "name", type(module).__name__),
        "preset": asdict(known),
        "machine": _machine(),
        "cpu": fingerprint(),
        "features": Target.host().features,
        "constants": executable.constants.nbytes,
    }
    head = json.dumps(about).encode() + b"\n" + content
    fixed = _MAGIC + len(head).to_bytes(8, "little") + hashlib.sha256(head).digest()
    fill = bytes(-(len(fixed) + len(head)) % _PAGE)
    try:
        constants = executable.constants.view(np.uint8).data
        write_atomically(target, [fixed, head, fill, constants], durable=True)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> CompiledNetwork:
    """The compiled network in the file `path`, ready to run on `threads` threads.

    Raises OSError for a file that cannot be read, ArtifactError for one that is no compiled
    network, is damaged, or was compiled for another kind of CPU.
    """
    source = Path(path)
    with source.open("rb") as file:
        fixed = file.read(_FIXED_BYTES)
        if not fixed.startswith(_MAGIC):
            raise ArtifactError(
                f"{source}: it is no compiled network (`striate compile` makes one)"
            )
        size = int.from_bytes(fixed[len(_MAGIC) : len(_MAGIC) + 8], "little")
        total = os.fstat(file.fileno()).st_size
        head = file.read(size) if size <= total else b""
    if len(head) != size or hashlib.sha256(head).digest() != fixed[-32:]:
        raise ArtifactError(f"{source}: it is damaged; compile the network anew")
    line, _, content = head.partition(b"\n")
    about = json.loads(line)
    _check_machine(source, about)
    start = -(-(_FIXED_BYTES + size) // _PAGE) * _PAGE
    if total != start + about["constants"]:
        raise ArtifactError(f"{source}: it is cut short; compile the network anew")
    try:
        program = loads(content)
    except StorageError as error:
        raise ArtifactError(f"{source}: {error}; compile the network anew") from error
    constants = _mapped(source, start, about["constants"] // 4)
    executable = Executable(replace(program, constants=constants), threads)
    return CompiledNetwork(about["name"], _preset(**about["preset"]), executable)


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file that begins as a compiled network does."""
    with contextlib.suppress(OSError, ValueError), Path(path).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def _mapped(source: Path, start: int, count: int) -> Array:
    if not count:
        return np.empty(0, np.float32)
    return np.memmap(source, np.float32, "r", start, (count,))


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}"


def _check_machine(source: Path, about: dict[str, object]) -> None:
    """The code runs on the CPU it was compiled on, and on those that can do all it can."""
    if about["machine"] != _machine():
        raise ArtifactError(
            f"{source}: it was compiled for {about['machine']}, this is {_machine()}; "
            f"compile the network here"
        )
    if about["cpu"] is not None and about["cpu"] == fingerprint():
        return
    needed = {each for each in str(about["features"]).split(",") if each.startswith("+")}
    missing = sorted(needed - set(Target.host().features.split(",")))
    if missing:
        names = ", ".join(each[1:] for each in missing)
        raise ArtifactError(
            f"{source}: it was compiled for a CPU with {names}, which this one lacks; "
            f"compile the network here"
        )


def _preset(mean: Sequence[float], std: Sequence[float], **others: Any) -> PresetData:
    """A preset out of JSON, which has no tuples."""
    return PresetData(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]), **others)
