"""safetensors files, read and written through the safetensors library."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.weights.errors import WeightsError
from striate.weights.pth import map_file
from striate.weights.state import rename
from striate.weights.tensors import contiguous_array

_ELEMENTS: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """The tensors of a safetensors file; float16 and bfloat16 come as float32.

    The library checks the whole header; the arrays are then views of a private map of the file,
    which the library's own NumPy interface would copy (and which knows no bfloat16).
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            data = map_file(path)
    except SafetensorError as error:
        raise WeightsError(f"it is not a sound safetensors file: {error}") from error
    start = 8 + int.from_bytes(data[:8], "little")
    state: dict[str, NDArray[np.generic]] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        element = _ELEMENTS.get(entry["dtype"])
        if element is None:
            raise WeightsError(f"{name!r} has elements of type {entry['dtype']}, which is not read")
        begin, end = entry["data_offsets"]
        content = np.frombuffer(data, np.uint8, end - begin, start + begin)
        state[name] = contiguous_array(content, element, tuple(entry["shape"]))
    if not state:
        raise WeightsError("it holds no tensors")
    return rename(state)


def write_safetensors(
    path: str | os.PathLike[str],
    state: Mapping[str, ArrayLike],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `state` to `path`: complete or not at all, never a half-written file in its place.

    Raises WeightsError where an element type has no place in the format or the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    target = Path(path)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, value in state.items():
        array = np.asarray(value)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.kind not in "fiub" or array.itemsize > 8:
            raise WeightsError(f"{target}: {name!r} of type {array.dtype} cannot be written")
        # ascontiguousarray would make a scalar an array of one axis.
        arrays[name] = array.copy() if not array.flags.c_contiguous else array
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        save_file(arrays, temporary, metadata=dict(metadata) if metadata else None)
        _flush(temporary)
        os.replace(temporary, target)
    except (OSError, SafetensorError, TypeError) as error:
        raise WeightsError(f"{target}: cannot be written: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _flush(path: str) -> None:
    """Make the file's content durable and its mode that of an ordinary new file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
