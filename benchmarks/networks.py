"""The thirteen raced networks: their graphs, golden weights, images and right answers.

The graphs are ONNX files without weights (`--peers DIR`); beside that folder lies `golden/`, whose
`recipe.py` draws every weight and input from its name, and whose `logits.npz` holds the answers.
"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NAMES = (
    "alexnet",
    "vgg16",
    "resnet18",
    "resnet50",
    "squeezenet1_0",
    "densenet121",
    "inception_v3",
    "googlenet",
    "shufflenet_v2_x1_0",
    "mobilenet_v2",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "mnasnet1_0",
)
BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "peers"
CACHE = Path(tempfile.gettempdir()) / "striate-race"


class UnavailableError(Exception):
    """Something that a benchmark needs is not here; the message says what and how to get it."""


@dataclass(frozen=True)
class Collection:
    """The graphs in `peers`, weights and answers in `golden`, and a cache for filled graphs."""

    peers: Path = BESIDE_THE_CHECKOUT
    cache: Path = CACHE

    @property
    def golden(self) -> Path:
        return self.peers.parent / "golden"

    def check(self, names: tuple[str, ...]) -> None:
        """Raises `UnavailableError` naming the first missing file that `names` need."""
        unknown = sorted(set(names) - set(NAMES))
        if unknown:
            raise UnavailableError(
                f"no raced network {', '.join(unknown)}; there are {', '.join(NAMES)}"
            )
        needed = [self.peers / f"{name}.onnx" for name in names]
        needed += [self.golden / file for file in ("recipe.py", "manifest.json", "logits.npz")]
        for path in needed:
            if not path.is_file():
                raise UnavailableError(
                    f"{path} is not there: give the folder of the ONNX graphs with --peers DIR "
                    "(the folder golden/ is looked for beside it)"
                )

    @cached_property
    def _manifest(self) -> dict[str, dict[str, object]]:
        manifest: dict[str, dict[str, object]] = json.loads(
            (self.golden / "manifest.json").read_text()
        )
        return manifest

    @cached_property
    def _recipe(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("golden_recipe", self.golden / "recipe.py")
        if spec is None or spec.loader is None:
            raise UnavailableError(f"{self.golden / 'recipe.py'} is no Python module")
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        return recipe

    def _draw(self, key: str, shape: Sequence[int]) -> NDArray[np.generic]:
        """The golden value of the state-dict entry `key`."""
        value: NDArray[np.generic] = self._recipe.tensor(key, tuple(shape))
        return value

    def multiply_adds(self, name: str) -> int:
        """Multiply-adds of one image: convolutions and linear layers."""
        count = self._manifest[name]["multiply_adds"]
        assert isinstance(count, int)
        return count

    def state_dict(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The golden weights in torchvision's names and layouts."""
        shapes = self._manifest[name]["state_dict"]
        assert isinstance(shapes, dict)
        return {key: self._draw(key, shape) for key, shape in shapes.items()}

    def images(self, name: str, batch: int) -> Array:
        """float32[batch, 3, height, width]: the two golden images, again and again."""
        size = self._manifest[name]["input"]
        assert isinstance(size, list)
        pair: Array = self._recipe.image_batch(2, *size)
        return np.ascontiguousarray(np.resize(pair, (batch, *pair.shape[1:])))

    def logits(self, name: str, batch: int) -> Array:
        """float32[batch, 1000]: the golden answers to `images`."""
        with np.load(self.golden / "logits.npz") as archive:
            pair: Array = archive[f"{name}/logits"]
        return np.resize(pair, (batch, pair.shape[1]))

    def weights(self, name: str) -> Path:
        """The golden weights of `name` as a safetensors file, made once and cached."""
        target = self.cache / f"{name}.safetensors"
        if not target.is_file():
            save = import_module("safetensors.numpy").save_file
            self._make(target, lambda partial: save(self.state_dict(name), partial))
        return target

    def filled(self, name: str) -> Path:
        """The ONNX graph of `name` with the golden weights, made once and cached."""
        source = self.peers / f"{name}.onnx"
        target = self.cache / f"{name}-{source.stat().st_size}.onnx"
        if not target.is_file():
            onnx = import_module("onnx")
            model = onnx.load(source)
            for tensor in model.graph.initializer:
                value = self._draw(tensor.name, tensor.dims)
                contiguous = np.ascontiguousarray(value).reshape(tuple(tensor.dims))
                tensor.CopyFrom(onnx.numpy_helper.from_array(contiguous, tensor.name))
            self._make(target, lambda partial: onnx.save(model, partial))
        return target

    def _make(self, target: Path, write: Callable[[Path], object]) -> None:
        """`write` a file beside `target` and rename it, so that no reader sees half a file."""
        self.cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        write(partial)
        partial.replace(target)
