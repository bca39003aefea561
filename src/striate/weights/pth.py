"""Files of `torch.save` in both forms, mapped into memory: the legacy stream and the zip archive.

legacy  five pickles (magic number, version, system, object, storage keys), then each storage as a
        64-bit element count and its elements, always little-endian
zip     NAME/data.pkl, NAME/data/KEY per storage, NAME/byteorder; members are stored, not deflated,
        and aligned to 64 bytes, so that arrays can be views of the file
"""

import mmap
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.weights.errors import WeightsError
from striate.weights.pickles import Unpickler
from striate.weights.tensors import CALLS, ELEMENTS, INERT, Storage, Tensor, storage_of, to_array

# The long integer that a stream begins with, behind the header of its pickle protocol, and its end.
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
_MAGIC_WITHIN = 32

_MOST_INFLATED = 1 << 32
_MOST_PICKLE = 1 << 28
_LOCAL_HEADER = 30


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds: an object of dicts, lists and `Tensor`s, and the bytes behind them."""

    content: object
    data: mmap.mmap
    places: dict[str, int]
    inflated: dict[str, NDArray[np.uint8]]
    big_endian: bool

    def array(self, tensor: Tensor) -> NDArray[np.generic]:
        """`tensor` with its values, a view of the file where nothing has to change."""
        return to_array(tensor, self._bytes, self.big_endian)

    def _bytes(self, storage: Storage) -> NDArray[np.uint8]:
        width = ELEMENTS[storage.element].itemsize
        start, size = storage.start * width, storage.count * width
        inflated = self.inflated.get(storage.key)
        if inflated is not None:
            return inflated[start : start + size]
        return np.frombuffer(self.data, np.uint8, size, self.places[storage.key] + start)


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file, copied on write: arrays on it are writable, the file stays."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def is_stream(head: bytes) -> bool:
    """Whether a file that begins with `head` has the legacy form."""
    return head[:1] == b"\x80" and _MAGIC in head[:_MAGIC_WITHIN]


def read_stream(data: mmap.mmap) -> Saved:
    """The legacy form."""
    storages: dict[str, Storage] = {}

    def persistent(identifier: tuple[object, ...]) -> Storage:
        storage = storage_of(identifier)
        known = storages.setdefault(storage.key, storage)
        if (known.element, known.whole) != (storage.element, storage.whole):
            raise WeightsError(f"storage {storage.key!r} has two sizes; the file is corrupt")
        return storage

    position = 0
    contents: list[object] = []
    for _ in range(5):
        unpickler = Unpickler(data, position, CALLS, INERT, persistent)
        contents.append(unpickler.load())
        position = unpickler.position
    *_, content, keys = contents
    if not isinstance(keys, list):
        raise WeightsError("its list of storages is missing; the file is corrupt")
    places: dict[str, int] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise WeightsError(f"its list of storages names {key!r}, which no tensor uses")
        count = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + storage.bytes_needed
        if end > len(data):
            raise _cut_off(f"storage {len(places) + 1} of {len(keys)}", end, len(data))
        if count != storage.whole:
            raise WeightsError(
                f"storage {key!r} has {count} elements where its tensors say {storage.whole}"
            )
        places[storage.key] = position + 8
        position = end
    for key in storages.keys() - places.keys():
        raise WeightsError(f"storage {key!r} is missing from its list of storages")
    return Saved(content, data, places, {}, big_endian=False)


def _cut_off(what: str, end: int, size: int) -> WeightsError:
    return WeightsError(
        f"the file is cut off: {what} ends at byte {end}, the file has {size}; download it again"
    )


def read_archive(path: Path, data: mmap.mmap) -> Saved:
    """The zip form."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, data)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"its zip archive is damaged or cut off ({error}); download it again"
        ) from error


def _read_archive(archive: zipfile.ZipFile, data: mmap.mmap) -> Saved:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise WeightsError(
            "it is a zip archive, but not one of torch.save: it has no data.pkl"
            + (" (it looks like NumPy's .npz)" if any(n.endswith(".npy") for n in members) else "")
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise WeightsError(
            "it is a TorchScript program, not weights; load it with torch.jit.load "
            "and save its state_dict()"
        )
    order = _small(archive, members.get(f"{root}byteorder"), 16) or b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"its byte order is {order!r}; known are 'little' and 'big'")
    places: dict[str, int] = {}
    inflated: dict[str, NDArray[np.uint8]] = {}

    def persistent(identifier: tuple[object, ...]) -> Storage:
        storage = storage_of(identifier)
        info = members.get(f"{root}data/{storage.key}")
        if info is None:
            raise WeightsError(f"storage {storage.key!r} is missing from its zip archive")
        if info.file_size < storage.bytes_needed:
            raise WeightsError(
                f"storage {storage.key!r} has {info.file_size} bytes, "
                f"its tensors need {storage.bytes_needed}"
            )
        if storage.key in places or storage.key in inflated:
            return storage
        if info.compress_type == zipfile.ZIP_STORED:
            places[storage.key] = _place(info, data)
        else:
            content = _small(archive, info, _MOST_INFLATED)
            inflated[storage.key] = np.frombuffer(bytearray(content), np.uint8)
        return storage

    program = _small(archive, members[pickles[0]], _MOST_PICKLE)
    content = Unpickler(program, 0, CALLS, INERT, persistent).load()
    return Saved(content, data, places, inflated, order == b"big")


def _small(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, most: int) -> bytes:
    """The content of a member, b"" where there is none, refused above `most` bytes."""
    if info is None:
        return b""
    if info.file_size > most:
        raise WeightsError(f"its member {info.filename!r} unpacks to {info.file_size} bytes")
    return archive.read(info)


def _place(info: zipfile.ZipInfo, data: mmap.mmap) -> int:
    """Where in the file the bytes of a stored member begin."""
    start = info.header_offset
    header = data[start : start + _LOCAL_HEADER]
    if len(header) != _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no local header of {info.filename!r}")
    if info.flag_bits & 1:
        raise WeightsError(f"its member {info.filename!r} is encrypted")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    place = start + _LOCAL_HEADER + names
    if place + info.file_size > len(data):
        raise _cut_off(f"member {info.filename!r}", place + info.file_size, len(data))
    return place
