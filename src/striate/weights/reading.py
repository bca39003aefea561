"""Reading weight files of any known form."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.weights.errors import WeightsError
from striate.weights.pth import is_stream, map_file, read_archive, read_stream
from striate.weights.safe import read_safetensors
from striate.weights.state import find_state

# First bytes of files that are often mistaken for weights, and what to say of them.
_STRANGERS = (
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer, not the file itself; run 'git lfs pull'",
    ),
    (b"\x89HDF", "it is an HDF5 file (Keras); only .pth and .safetensors are read"),
    (b"\x1f\x8b", "it is compressed by gzip; unpack it first"),
    (b"\x93NUMPY", "it is a NumPy array; only .pth and .safetensors are read"),
    (b"\x89PNG", "it is an image, not weights"),
    (b"\xff\xd8\xff", "it is an image, not weights"),
)

_SMALLEST = 32


def read(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    """The state dict in a `.pth` or `.safetensors` file, under torchvision's names and layouts.

    Nothing in the file is executed. Wrappers (`state_dict`, `model`, `model_ema`, ...) and prefixes
    (`module.`) are taken off. float16 and bfloat16 come as float32, everything else as it is.
    Arrays are views of a private map of the file where it allows that: they may be written to, the
    file does not change. Raises WeightsError, which names the file.
    """
    place = Path(path)
    try:
        return _read(place)
    except WeightsError as error:
        raise WeightsError(f"{place}: {error}") from error.__cause__
    except FileNotFoundError:
        raise WeightsError(f"{place}: no such file") from None
    except MemoryError:
        raise WeightsError(f"{place}: its tensors do not fit into memory") from None
    except OSError as error:
        raise WeightsError(f"{place}: cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if path.is_dir():
        raise WeightsError("it is a folder; name the file in it")
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise WeightsError("the file is empty; download it again")
    if head.startswith(b"PK\x03\x04"):
        saved = read_archive(path, map_file(path))
    elif is_stream(head):
        saved = read_stream(map_file(path))
    elif len(head) > 8 and head[8:9] == b"{":
        return read_safetensors(path)
    else:
        raise WeightsError(_stranger(head, path))
    return {name: saved.array(tensor) for name, tensor in find_state(saved.content).items()}


def _stranger(head: bytes, path: Path) -> str:
    for start, words in _STRANGERS:
        if head.startswith(start):
            return words
    if head.lstrip()[:1] == b"<":
        return "it is a web page, not weights: the download went wrong"
    if len(head) < _SMALLEST:
        return f"it has only {len(head)} bytes: it is cut off, or no weight file; download it again"
    if head[257:262] == b"ustar":
        return "it is a tar archive (torch before 0.1.10); save it again with a newer torch"
    if head[:1] == b"\x80" and head[1] in range(2, 6):
        return "it is a plain pickle, not a file of torch.save; save model.state_dict() with torch"
    return f"it is neither .pth nor .safetensors; it begins with {head[:8]!r}"
