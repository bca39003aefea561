"""What steps fetch for later ones: each weight once before it is read, none too early."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from striate import models
from striate.compiler import compile_graph
from striate.compiler.prefetch import room, with_prefetches
from striate.compiler.program import Kernel, Pointer, Prefetch, Program, Room, Step
from striate.compiler.target import Target

LINE = 64
TARGET = Target.named("generic")


def program_of(generator: np.random.Generator) -> tuple[Program, int]:
    """Phases of a few steps of one chunk, whose constants lie in order or in any."""
    count = 40
    rooms = [Room(), *[Room(*generator.integers(1, 9, 2).tolist()) for _ in range(3)]]
    kernels = tuple(Kernel(f"k{n}", "", "", "", None, b"", 0, one) for n, one in enumerate(rooms))
    places = (LINE * np.cumsum([0, *generator.integers(1, 30, count)])).tolist()
    left = (generator.permutation(count) if generator.random() < 0.5 else np.arange(count)).tolist()
    phases = []
    while left:
        steps = []
        for _ in range(int(generator.integers(1, 4))):
            own, left = left[: (taken := int(generator.integers(0, 3)))], left[taken:]
            pointers = [Pointer("constant", 0, places[n]) for n in own]
            kernel = int(generator.integers(0, len(kernels)))
            steps.append(Step("", kernel, 1, (*pointers, Pointer("arena", 0, 0)), 0, 0))
        phases.append(tuple(steps))
    return Program(kernels, tuple(phases), None, None, 0, (), ()), places[-1]


def lines_of(step: Step) -> set[int]:
    """The lines that a step asks for."""
    end = step.later.offset + step.chunks * step.later.share
    return set(range(step.later.offset, end, LINE))


def read_by(program: Program, nbytes: int) -> list[set[int]]:
    """The lines of constants that each phase reads."""
    starts = [
        {p.offset for step in phase for p in step.pointers if p.space == "constant"}
        for phase in program.phases
    ]
    places = sorted({*set().union(*starts), nbytes})
    ends = dict(itertools.pairwise(places))
    return [{at for start in own for at in range(start, ends[start], LINE)} for own in starts]


@pytest.mark.parametrize("seed", range(40))
def test_each_weight_is_fetched_once_and_read_soon_after(seed: int) -> None:
    generator = np.random.default_rng(seed)
    program, nbytes = program_of(generator)
    near = int(generator.integers(1, 200))
    fetched = with_prefetches(program, nbytes, replace(TARGET, l3=8 * LINE * near))
    read = read_by(program, nbytes)
    waiting: set[int] = set()
    for number, phase in enumerate(fetched.phases):
        for step in phase:
            each, later, lines = fetched.kernels[step.kernel].room, step.later, lines_of(step)
            assert later.share <= min(each.rounds * each.lines * LINE, later.pace * each.rounds)
            assert later.pace <= each.lines * LINE
            assert not lines & waiting
            assert lines <= set().union(*read[number + 1 :])
            waiting |= lines
        waiting -= read[number]
        assert len(waiting) <= max(0, near - len(read[number]))
    assert not waiting


def test_with_room_every_weight_is_fetched_by_the_step_before() -> None:
    places, kernel = (0, 640, 6400, 7040), Kernel("k", "", "", "", None, b"", 0, Room(10, 10))
    pointers = [(Pointer("constant", 0, place), Pointer("arena", 0, 0)) for place in places]
    phases = tuple((Step("", 0, 3, each, 0, 0),) for each in pointers)
    program = Program((kernel,), phases, None, None, 0, (), ())
    fetched = with_prefetches(program, 8000, replace(TARGET, l3=1 << 20))
    later = [step.later for (step,) in fetched.phases]
    # 5760 bytes in three shares, 640, and 960, of which the last is no whole line.
    assert later == [
        Prefetch(640, 1920, 192),
        Prefetch(6400, 256, 26),
        Prefetch(7040, 320, 32),
        Prefetch(),
    ]


def test_steps_without_room_leave_it_to_those_before_them() -> None:
    kernels = tuple(
        Kernel(str(n), "", "", "", None, b"", 0, one) for n, one in enumerate((Room(8, 4), Room()))
    )
    reads = [(Pointer("constant", 0, 64 * n),) for n in range(3)]
    phases = tuple((Step("", n, 1, reads[k], 0, 0),) for k, n in enumerate((0, 1, 0)))
    program = Program(kernels, phases, None, None, 0, (), ())
    fetched = with_prefetches(program, 192, replace(TARGET, l3=1 << 20))
    assert [step.later for (step,) in fetched.phases] == [
        Prefetch(64, 128, 16),
        Prefetch(),
        Prefetch(),
    ]


def test_a_step_that_streams_its_weights_fetches_nothing() -> None:
    """What it fetched would be gone before it ends."""
    kernel = Kernel("k", "", "", "", None, b"", 0, Room(1000, 6))
    pointers = [(Pointer("constant", 0, place),) for place in (0, 1 << 20)]
    phases = tuple((Step("", 0, 4, each, 0, 0),) for each in pointers)
    program = Program((kernel,), phases, None, None, 0, (), ())
    for l3, share in ((8 << 20, 0), (9 << 20, 32 << 10)):
        fetched = with_prefetches(program, 2 << 20, replace(TARGET, l3=l3))
        assert fetched.phases[0][0].later.share == share


def test_rooms() -> None:
    assert room(0, 100) == Room(0, 0)
    assert room(10, 0) == Room(10, 1)
    assert room(10, 640) == Room(10, 2)
    assert room(10, 6400) == Room(10, 6)


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x1_0", "googlenet"])
def test_networks_fetch_most_of_their_weights(name: str) -> None:
    """All but those of layers that stream them, and of the first."""
    height, width = models.find(name).input
    graph = models.create(name).trace((1, height, width, 3))
    program = compile_graph(graph, replace(Target.host(), l3=128 << 20))
    assert program.preparation is not None
    (shape,) = program.preparation.program.outputs
    fetched = set().union(*[lines_of(step) for phase in program.phases for step in phase])
    assert LINE * len(fetched) > 0.7 * 4 * shape[0]
