"""The run of an evaluation: images are read and classified, and every answer is kept."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from striate.compiler.kept import signature
from striate.compiler.storage import dumps
from striate.evaluation.dataset import Data, Dataset, Pathlike, read_dataset
from striate.evaluation.journal import Journal
from striate.evaluation.result import TOP, Evaluation, Failure, Outcome
from striate.evaluation.tables import DataError
from striate.images import Preset, load
from striate.vision.classification import (
    Array,
    Classifier,
    Unreadable,
    find_network,
    of_compiled,
    of_module,
    preset_of,
)

if TYPE_CHECKING:
    from striate.images.loading import Source
    from striate.layers import Module
    from striate.weights.artifact import CompiledNetwork

# Takes the file that was classified.
Watcher = Callable[[str], None]
DEFAULT_BATCH = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A network that is evaluated: `classes` scores; `digest` stands for its code and weights."""

    name: str
    classifier: Classifier
    preset: Preset
    classes: int
    digest: str

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, columns and colours of the images that it is given."""
        return self.preset.crop, self.preset.crop, 3


def evaluate(
    model: "str | Module | CompiledNetwork",
    data: Data,
    *,
    labels: Pathlike | None = None,
    synsets: Pathlike | None = None,
    weights: str = "imagenet",
    preset: Preset | None = None,
    batch: int = DEFAULT_BATCH,
    threads: int | None = None,
    limit: int | None = None,
    exif: bool = True,
    journal: Pathlike | None = None,
    restart: bool = False,
    watch: Watcher | None = None,
) -> Evaluation:
    """How often `model` is right about the images of `data`, each file counted once.

    `model` is a network, compiled or not, or the name of one that is given `weights` ("imagenet" or
    a path), or a compiled one's path. `data` is a folder with a folder of images for each class; a
    list of images and classes (CSV, TSV, or the class as the last word of a line); pairs of path
    and class; or a folder of images whose list is `labels`, as ImageNet's `val` with its ground
    truth (`synsets` is the devkit's file that says its order, if it is not beside it). Classes
    are ImageNet's by synset, name or number; a network's own by number or in sorted order.
    `limit` takes so many images, always the same. Without `exif`, photos are not turned upright, as
    published accuracies were measured. Images that cannot be read are named and not counted.
    What is found is kept in the file `journal` and not looked for again, unless the network, the
    preset or the data have changed, or `restart` is set. `watch` is told each file that is done.
    Raises ImageError, OSError, JournalError, and DataError where no image can be read.
    """
    subject = find_subject(model, weights, preset, threads, exif)
    dataset = read_dataset(data, labels, synsets, subject.classifier.labels, subject.classes)
    if journal is None:
        return run(subject, dataset, None, batch, limit, watch)
    with Journal(Path(journal), about(subject, dataset, exif), restart) as kept:
        return run(subject, dataset, kept, batch, limit, watch)


def find_subject(
    model: "str | Module | CompiledNetwork",
    weights: str,
    preset: Preset | None,
    threads: int | None,
    exif: bool,
) -> Subject:
    """The network, its own preset unless another is given, and what identifies it."""
    from striate.weights.artifact import CompiledNetwork

    network = find_network(model, weights, threads) if isinstance(model, str) else model
    if isinstance(network, CompiledNetwork):
        chosen = preset or Preset.of(network.preset)
        classifier = of_compiled(network, chosen)
        program = network.executable.program
        code = dumps(replace(program, constants=None, preparation=None))
        arrays: Iterable[Array] = [network.executable.constants]
        shape = program.outputs[0]
    else:
        chosen = preset or preset_of(network)
        classifier = of_module(network, chosen, threads)
        graph = network.trace((1, chosen.crop, chosen.crop, 3))
        code, arrays = signature(graph).encode(), graph.arrays()
        shape = graph.outputs[0].shape
    name = getattr(network, "name", type(network).__name__)
    digest = hashlib.sha256(code)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    if len(shape) != 2:
        raise ValueError(f"{name} gives no scores [b, class] of images but {list(shape)}")

    def prepare(image: object) -> Array:
        return chosen(load(cast("Source", image), exif=exif))

    return Subject(name, replace(classifier, prepare=prepare), chosen, shape[1], digest.hexdigest())


def about(subject: Subject, dataset: Dataset, exif: bool) -> dict[str, str]:
    """What answers depend on, for a journal."""
    return {
        "network": subject.digest,
        "preset": f"{subject.preset!r}{'' if exif else ', as stored'}",
        "images": dataset.digest,
    }


def run(
    subject: Subject,
    dataset: Dataset,
    journal: Journal | None,
    batch: int = DEFAULT_BATCH,
    limit: int | None = None,
    watch: Watcher | None = None,
) -> Evaluation:
    """Classify the images that are not in the journal, and draw the sum. Raises DataError."""
    wanted = dataset.subset(limit)
    found = {} if journal is None else {k: journal.found[k] for k in wanted if k in journal.found}
    resumed = len(found)
    open_places = [place for place in wanted if place not in found]
    failures: list[Failure] = []
    batch = min(batch, max(1, len(open_places)))
    if open_places:  # compiled before the clock starts
        subject.classifier.network(np.zeros((batch, *subject.size), np.float32))
    paths = [dataset.samples[place].path for place in open_places]
    begun = time.perf_counter()
    answers = subject.classifier.each([(str(path), path) for path in paths], TOP, batch)
    for place, path, answer in zip(open_places, paths, answers, strict=True):
        if isinstance(answer, Unreadable):
            failures.append(Failure(path, _reason(answer, path)))
        else:
            found[place] = tuple((guess.index, guess.probability) for guess in answer.top)
            if journal is not None:
                journal.add(place, found[place])
        if watch is not None:
            watch(str(path))
    seconds = time.perf_counter() - begun
    if not found:
        raise DataError(
            f"{dataset.name}: none of its {len(wanted)} images can be read, as "
            f"{failures[0].path}: {failures[0].reason}"
        )
    samples = ((dataset.samples[place], found[place]) for place in sorted(found))
    return Evaluation(
        subject.name,
        dataset.name,
        subject.preset,
        dataset.classes,
        tuple(Outcome(sample.path, sample.label, guesses) for sample, guesses in samples),
        tuple(failures),
        dataset.duplicates,
        dataset.unlabelled,
        resumed,
        seconds,
    )


def _reason(answer: Unreadable, path: Path) -> str:
    """Why the image cannot be read, without its name."""
    return str(answer.error).removeprefix(f"{path}: ")
