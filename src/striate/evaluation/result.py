"""What an evaluation found: errors with their intervals, classes, confusions, mistakes."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from striate.evaluation.dataset import Duplicate
from striate.vision.classification import Label
from striate.weights.presets import PresetData

# Of a normal distribution, 95% lie within this many standard deviations of its mean.
_Z = 1.959963984540054
TOP = 5


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, and where the true share lies with 95% confidence.

    The interval is Wilson's (JASA 22, 1927), which holds for small counts and near 0 and 1 too.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The least and the largest share that the count is likely to come from."""
        k, n, z2 = self.count, self.total, _Z * _Z
        middle = k + z2 / 2
        half = _Z * math.sqrt(k * (n - k) / n + z2 / 4)
        low, high = (middle - half) / (n + z2), (middle + half) / (n + z2)
        return (0.0 if k == 0 else low), (1.0 if k == n else high)

    def as_json(self) -> dict[str, float]:
        """The share for programs."""
        low, high = self.interval
        return {"count": self.count, "share": self.value, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An image, the number of its class, and the network's guesses with their probabilities."""

    path: Path
    label: int
    guesses: tuple[tuple[int, float], ...]

    @property
    def guess(self) -> int:
        """The class the network holds for the most probable."""
        return self.guesses[0][0]

    @property
    def confidence(self) -> float:
        """The probability of the first guess."""
        return self.guesses[0][1]

    @property
    def right(self) -> bool:
        """Whether the first guess is the image's class."""
        return self.guess == self.label

    @property
    def in_top(self) -> bool:
        """Whether the image's class is among the five guesses."""
        return any(index == self.label for index, _ in self.guesses)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class ClassResult:
    """The errors on the images of one class."""

    index: int
    name: str
    synset: str
    top1_error: Share
    top5_error: Share


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of the class `label` were taken for `guess`; the surest of them."""

    label: int
    guess: int
    count: int
    example: Outcome


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A network's answers on images whose classes are known, and what follows from them.

    `classes` are named by number. `resumed` of the outcomes were found before; the others took
    `seconds`. Evaluations are equal if they found the same, however long it took.
    """

    model: str
    data: str
    preset: PresetData
    classes: tuple[Label, ...]
    outcomes: tuple[Outcome, ...]
    failures: tuple[Failure, ...]
    duplicates: tuple[Duplicate, ...]
    unlabelled: tuple[Path, ...]
    resumed: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def top1_error(self) -> Share:
        """The images whose class is not the first guess."""
        return top1_error(self.outcomes)

    @property
    def top5_error(self) -> Share:
        """The images whose class is not among the five guesses."""
        return top5_error(self.outcomes)

    @property
    def images_per_second(self) -> float | None:
        """Images read and classified in a second; None if none were in this run."""
        new = len(self.outcomes) - self.resumed
        return new / self.seconds if new and self.seconds else None

    def by_class(self) -> list[ClassResult]:
        """The errors on each class that has images, the worst first."""
        groups: dict[int, list[Outcome]] = {}
        for outcome in self.outcomes:
            groups.setdefault(outcome.label, []).append(outcome)
        results = [
            ClassResult(k, self.name(k), self.classes[k].synset, top1_error(own), top5_error(own))
            for k, own in sorted(groups.items())
        ]
        return sorted(results, key=lambda one: (-one.top1_error.value, -one.top5_error.value))

    def mistakes(self) -> list[Outcome]:
        """The images whose first guess is wrong, the surest guesses first."""
        wrong = [outcome for outcome in self.outcomes if not outcome.right]
        return sorted(wrong, key=lambda outcome: -outcome.confidence)

    def confusions(self) -> list[Confusion]:
        """The pairs of classes that were confused, the most frequent first."""
        mistakes = self.mistakes()
        counts = Counter((one.label, one.guess) for one in mistakes)
        surest = {(one.label, one.guess): one for one in reversed(mistakes)}
        pairs = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [Confusion(*pair, count, surest[pair]) for pair, count in pairs]

    def name(self, index: int) -> str:
        """The name of a class."""
        return self.classes[index].name

    def as_json(self, most: int = 24) -> dict[str, object]:
        """The evaluation for programs, with at most so many confusions and mistakes."""
        return {
            "model": self.model,
            "data": self.data,
            "preset": asdict(self.preset),
            "images": len(self.outcomes),
            "top1_error": self.top1_error.as_json(),
            "top5_error": self.top5_error.as_json(),
            "top1_accuracy": 1 - self.top1_error.value,
            "top5_accuracy": 1 - self.top5_error.value,
            "images_per_second": self.images_per_second,
            "resumed": self.resumed,
            "classes": [
                {
                    "index": one.index,
                    "name": one.name,
                    "synset": one.synset,
                    "images": one.top1_error.total,
                    "top1_error": one.top1_error.as_json(),
                    "top5_error": one.top5_error.as_json(),
                }
                for one in self.by_class()
            ],
            "confusions": [
                {
                    "class": self.name(pair.label),
                    "guess": self.name(pair.guess),
                    "count": pair.count,
                }
                for pair in self.confusions()[:most]
            ],
            "mistakes": [
                {
                    "file": shown(one.path),
                    "class": self.name(one.label),
                    "guess": self.name(one.guess),
                    "probability": one.confidence,
                }
                for one in self.mistakes()[:most]
            ],
            "unreadable": [{"file": shown(f.path), "reason": f.reason} for f in self.failures],
            "duplicates": [
                {"file": shown(d.path), "first": shown(d.first), "contradicts": d.contradicts}
                for d in self.duplicates
            ],
            "unlabelled": [shown(path) for path in self.unlabelled],
        }


def shown(path: Path) -> str:
    """The name of a file as text; what is no Unicode in it becomes question marks."""
    return str(path).encode(errors="replace").decode()


def top1_error(outcomes: Iterable[Outcome]) -> Share:
    """Of `outcomes`, those whose first guess is wrong."""
    return _share([not one.right for one in outcomes])


def top5_error(outcomes: Iterable[Outcome]) -> Share:
    """Of `outcomes`, those whose class is not among the guesses."""
    return _share([not one.in_top for one in outcomes])


def _share(found: Sequence[bool]) -> Share:
    return Share(sum(found), len(found))
