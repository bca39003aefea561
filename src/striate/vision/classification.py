"""From images to the names of what they show."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from striate.images import Preset
    from striate.images.loading import Source
    from striate.layers import Module
    from striate.weights.artifact import CompiledNetwork

Array = NDArray[np.float32]
# From images float32[b, x, y, i] to scores float32[b, class].
Network = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its name, and its WordNet synset or "" where the classes are not ImageNet's."""

    name: str
    synset: str = ""


@dataclass(frozen=True, slots=True)
class Guess:
    """A class of an image and how probable the network holds it (0 to 1)."""

    index: int
    name: str
    synset: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable classes of one image, the most probable first."""

    source: str
    top: tuple[Guess, ...]

    @property
    def best(self) -> Guess:
        """The most probable class."""
        return self.top[0]

    def __str__(self) -> str:
        lines = (f"  {guess.probability:6.1%}  {guess.name}" for guess in self.top)
        return "\n".join([self.source, *lines])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, and why."""

    source: str
    error: ValueError | OSError


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network with what goes before it and after it: the preset of its weights, its classes.

    `prepare` turns an image into float32[x, y, i], `network` turns float32[b, x, y, i] into scores.
    `labels` are used where there are as many as scores, else a class is called by its number.
    """

    network: Network
    prepare: Callable[[object], Array]
    labels: Sequence[Label]

    def each(
        self,
        images: Iterable[tuple[str, object]],
        top: int = 5,
        batch: int = 1,
        readers: int | None = None,
    ) -> Iterator[Classification | Unreadable]:
        """What every one of the named `images` shows, in their order, as it becomes known.

        Images are read by `readers` threads while the network runs. Every call of the network is
        given `batch` images, so that one compiled program serves them all; fewer where that is all.
        """
        for name, value in (("top", top), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more")
        waiting: list[tuple[str, Array | ValueError | OSError]] = []
        ready = 0
        full_before = False
        for item in read_ahead(self.prepare, images, readers or os.cpu_count() or 1):
            waiting.append(item)
            ready += not isinstance(item[1], Exception)
            if ready == batch or not ready:
                yield from self.answer(waiting, top, batch)
                full_before = full_before or ready == batch
                waiting, ready = [], 0
        yield from self.answer(waiting, top, batch if full_before else ready)

    def answer(
        self, items: Sequence[tuple[str, Array | ValueError | OSError]], top: int, batch: int
    ) -> Iterator[Classification | Unreadable]:
        """One run of the network on the images among `items`, with blank ones up to `batch`."""
        arrays = [array for _, array in items if isinstance(array, np.ndarray)]
        if arrays:
            blank = [np.zeros_like(arrays[0])] * (batch - len(arrays))
            scores = iter(self.network(np.stack(arrays + blank)))
        for name, item in items:
            if isinstance(item, np.ndarray):
                yield Classification(name, self.guesses(next(scores), top))
            else:
                yield Unreadable(name, item)

    def guesses(self, scores: Array, top: int) -> tuple[Guess, ...]:
        """The `top` classes by their `scores`, float32[class]; the first of equal ones first."""
        if not np.isfinite(scores).all():
            raise ValueError(
                "the network's scores are not finite numbers; its weights or its input are damaged"
            )
        order = np.argsort(-scores, kind="stable")[:top]
        labels = labels_for(len(scores), self.labels)
        result = []
        for index, probability in zip(order.tolist(), softmax(scores)[order].tolist(), strict=True):
            label = labels[index]
            result.append(Guess(index, label.name, label.synset, probability))
        return tuple(result)


def labels_for(classes: int, known: Sequence[Label] | None = None) -> Sequence[Label]:
    """The labels of so many classes: the `known` (ImageNet's) if they are as many, or numbers."""
    known = imagenet_labels() if known is None else known
    if len(known) == classes:
        return known
    return [Label(f"class {index}") for index in range(classes)]


def imagenet_labels() -> list[Label]:
    """The classes of ImageNet, by number."""
    from striate.images import class_names

    return [Label(known.name, known.synset) for known in class_names()]


def softmax(scores: Array) -> NDArray[np.float64]:
    """Probabilities of `scores[..., class]`, which may be large: exp(s - max) / sum of the same."""
    raised = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True), np.float64)


def read_ahead(
    prepare: Callable[[object], Array], images: Iterable[tuple[str, object]], readers: int
) -> Iterator[tuple[str, Array | ValueError | OSError]]:
    """The images prepared in their order, by `readers` threads, a few ahead of their use."""

    def read(image: object) -> Array | ValueError | OSError:
        try:
            return prepare(image)
        except (ValueError, OSError) as error:
            return error

    queue: deque[tuple[str, Future[Array | ValueError | OSError]]] = deque()
    with ThreadPoolExecutor(readers, "striate-images") as pool:
        try:
            for name, image in images:
                queue.append((name, pool.submit(read, image)))
                if len(queue) > 2 * readers:
                    first, future = queue.popleft()
                    yield first, future.result()
            while queue:
                first, future = queue.popleft()
                yield first, future.result()
        finally:
            for _, future in queue:
                future.cancel()


def classify(
    model: "str | Module",
    images: "Source | Sequence[Source]",
    top: int = 5,
    *,
    preset: "Preset | None" = None,
    batch: int = 1,
    threads: int | None = None,
) -> list[Classification]:
    """What each of `images` shows: its `top` most probable classes, the most probable first.

    `model` is a network, or the name of one that is given its ImageNet weights. An image is a path,
    bytes, an open file or a Pillow image; one alone may stand without a list. `preset` is how the
    network's training prepared images; by default what `models.create` has written on it, else
    torchvision's usual one. Raises ImageError for the first image that cannot be read, ValueError.
    """
    if isinstance(model, str):
        network = classifier(model, preset=preset, threads=threads)
    else:
        network = of_module(model, preset, threads)
    several = list(images) if isinstance(images, list | tuple) else [images]
    results: list[Classification] = []
    for result in network.each([(name_of(image), image) for image in several], top, batch):
        if isinstance(result, Unreadable):
            raise result.error
        results.append(result)
    return results


def classifier(
    model: str,
    weights: str = "imagenet",
    *,
    preset: "Preset | None" = None,
    threads: int | None = None,
) -> Classifier:
    """The network `model` with trained `weights` ("imagenet" or a path) and their preset.

    `model` may be the path of a compiled network, which has its weights with it.
    """
    from striate.weights.artifact import CompiledNetwork

    network = find_network(model, weights, threads)
    if isinstance(network, CompiledNetwork):
        return of_compiled(network, preset)
    return of_module(network, preset, threads)


def find_network(
    model: str, weights: str = "imagenet", threads: int | None = None
) -> "Module | CompiledNetwork":
    """The network `model` with its `weights`; with those in its file where it is a compiled one."""
    from striate.models import create
    from striate.weights.artifact import SUFFIX, is_artifact, load

    if not (model.endswith(SUFFIX) or is_artifact(model)):
        return create(model, weights=weights)
    if weights != "imagenet":
        raise ValueError(f"{model} has its weights in it; compile it anew with {weights}")
    return load(model, threads=threads)


def of_compiled(network: "CompiledNetwork", preset: "Preset | None" = None) -> Classifier:
    """A compiled network with the preset it was compiled with; batches are filled up to its own."""
    from striate.images import Preset

    most, *_ = network.shape

    def scores(batch: Array) -> Array:
        blank = np.zeros((-len(batch) % most, *batch.shape[1:]), np.float32)
        filled = np.concatenate([batch, blank])
        parts = [network(filled[start : start + most]) for start in range(0, len(filled), most)]
        return np.concatenate(parts)[: len(batch)]

    return _classifier(scores, preset or Preset.of(network.preset))


def of_module(
    module: "Module", preset: "Preset | None" = None, threads: int | None = None
) -> Classifier:
    """A network, the preset of its weights (by default its own), and ImageNet's names."""

    def network(batch: Array) -> Array:
        scores = module(batch, threads=threads)
        if scores.ndim != 2:
            raise ValueError(f"{type(module).__name__} gives no scores [b, class] of images")
        return scores

    return _classifier(network, preset or preset_of(module))


def _classifier(network: Network, preset: "Preset") -> Classifier:
    from striate.images import load

    def prepare(image: object) -> Array:
        return preset(load(cast("Source", image)))

    return Classifier(network, prepare, imagenet_labels())


def network_of(model: "str | Module") -> "Module":
    """The network itself, or the one of that name with its ImageNet weights."""
    from striate.models import create

    return create(model, "imagenet") if isinstance(model, str) else model


def preset_of(module: "Module") -> "Preset":
    """The preset of the weights of `module`; torchvision's usual one where it has none."""
    from striate.images import Preset
    from striate.weights.presets import PresetData

    known = getattr(module, "preset", None)
    return Preset.of(known) if isinstance(known, PresetData) else Preset()


def name_of(image: object) -> str:
    """What to call an image: its path, or the name of its file if it has one."""
    if isinstance(image, str | os.PathLike):
        return os.fsdecode(image)
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return name if isinstance(name, str) and name else "image"
