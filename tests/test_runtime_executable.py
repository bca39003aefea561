"""Executables: the right numbers for any number of threads, memory, errors, profile."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from runtime_kernels import BLOCK, chain, kernel, ramp

from striate.compiler.program import Pointer, Program, Step
from striate.runtime.executable import Executable
from striate.runtime.memory import address


def reversing(phases: int, chunks: int) -> Program:
    """y = x + phases with the order of the blocks reversed in each phase."""
    return chain(phases, chunks, "reverse", chunks - 1)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(("phases", "chunks"), [(1, 1), (1, 9), (7, 2), (40, 7), (9, 64)])
def test_every_phase_sees_all_of_the_one_before(phases: int, chunks: int, threads: int) -> None:
    run = Executable(reversing(phases, chunks), threads)
    x = ramp(chunks)
    expected = (x[::-1] if phases % 2 else x) + np.float32(phases)
    for _ in range(20):
        np.testing.assert_array_equal(run(x)[0], expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_phase_of_several_steps(threads: int) -> None:
    run = Executable(chain(5, 23, steps=4), threads)
    for _ in range(50):
        np.testing.assert_array_equal(run(ramp(23))[0], ramp(23) + 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_and_phases_without_chunks(threads: int) -> None:
    program = chain(3, 4)
    nothing = Step("nothing", 0, 0, (), 0, 0)
    first, second, third = program.phases
    phases = ((nothing, *first, nothing), (), (nothing,), second, third, (nothing,), ())
    run = Executable(replace(program, phases=phases), threads)
    np.testing.assert_array_equal(run(ramp(4))[0], ramp(4) + 3)
    assert len(run.profile(ramp(4), repeat=2)) == 7
    assert Executable(replace(program, phases=(), outputs=()), threads)(ramp(4)) == ()


@pytest.mark.parametrize("threads", [2, 5])
def test_each_thread_has_its_own_scratch_memory(threads: int) -> None:
    small = Executable(chain(3, 9, "slow", 2000), threads)
    large = Executable(chain(3, 9, "slow", 2000, scratch_bytes=100_001), threads)
    for _ in range(20):
        for run in (small, large):
            np.testing.assert_array_equal(run(ramp(9))[0], ramp(9) + 3)


def test_inputs_of_any_layout_are_read_right() -> None:
    run = Executable(chain(2, 6), 2)
    x = ramp(6)
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for given in (frozen, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], shifted):
        np.testing.assert_array_equal(run(given)[0], x + 2)
    np.testing.assert_array_equal(
        run(np.broadcast_to(x[:1], x.shape))[0], x[:1] + np.full_like(x, 2)
    )


def test_outputs_are_new_arrays() -> None:
    run = Executable(chain(1, 3), 1)
    first, second = run(ramp(3))[0], run(ramp(3) + 1)[0]
    np.testing.assert_array_equal(first, ramp(3) + 1)
    np.testing.assert_array_equal(second, ramp(3) + 2)
    assert first.dtype == np.float32
    assert first.flags.writeable


def test_memory_is_aligned_and_constants_may_lie_anywhere() -> None:
    program = chain(2, 5, "slow", 3)
    constant = program.constants
    assert constant is not None
    odd = np.empty(constant.size + 1, np.float32)[1:]
    odd[:] = constant
    run = Executable(replace(program, constants=odd), 2)
    assert run.arena_bytes == program.arena_bytes == run.arena.size
    assert address(run.arena) % 64 == 0
    assert not run.arena.any()
    np.testing.assert_array_equal(run(ramp(5))[0], ramp(5) + 2)


def test_offsets_apply_in_every_space() -> None:
    step = Step(
        "part",
        0,
        2,
        (
            Pointer("input", 1, 4 * BLOCK),
            Pointer("output", 0, 8 * BLOCK),
            Pointer("constant", 0, 0),
        ),
        0,
        0,
    )
    program = replace(
        chain(1, 1),
        phases=((step,),),
        inputs=(("a", (1,)), ("b", (3, BLOCK))),
        outputs=((4, BLOCK),),
    )
    (y,) = Executable(program, 2)(np.zeros(1, np.float32), ramp(3))
    np.testing.assert_array_equal(y[2:], ramp(3)[1:] + 1)


def test_wrong_arguments_are_named() -> None:
    run = Executable(chain(1, 3), 1)
    with pytest.raises(TypeError, match="got 2 arrays, expected 1: x"):
        run(ramp(3), ramp(3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 16\), expected \(3, 16\)"):
        run(ramp(2))
    with pytest.raises(TypeError, match=r"x holds float64, expected float32; .*astype"):
        run(ramp(3).astype(np.float64))
    with pytest.raises(TypeError, match="x holds >f4"):
        run(ramp(3).astype(">f4"))
    with pytest.raises(TypeError, match="x is a list, expected a NumPy array of float32"):
        run([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads is 0, expected 1 to"):
        Executable(chain(1, 3), 0)
    with pytest.raises(ValueError, match="repeat is 0"):
        run.profile(ramp(3), repeat=0)


def test_no_more_threads_than_chunks() -> None:
    assert Executable(chain(4, 3), 7).threads == 3
    assert Executable(chain(4, 1), 7).threads == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_profile_finds_the_slow_phase(threads: int) -> None:
    slow, quick = kernel("slow"), kernel("advance")
    program = chain(5, 4, "slow", 100_000)
    phases = [
        tuple(replace(step, kernel=int(number != 3)) for step in phase)
        for number, phase in enumerate(program.phases)
    ]
    run = Executable(replace(program, kernels=(slow, quick), phases=tuple(phases)), threads)
    times = run.profile(ramp(4), repeat=5)
    assert len(times) == 5
    assert min(times) >= 0
    assert times[3] > 5 * max(times[:3] + times[4:])
    assert times[3] > 0
    np.testing.assert_array_equal(run(ramp(4) + 9)[0], ramp(4) + 14)


@pytest.mark.parametrize("threads", [1, 2])
def test_denormals_are_zero_inside_and_not_outside(threads: int) -> None:
    run = Executable(chain(1, 64, "scale", 0.5), threads)
    x = np.zeros((64, BLOCK), np.float32)
    x[:, 0] = 2e-38
    for _ in range(5):
        (y,) = run(x)
        assert not y[:, 0].any()
        assert np.float32(2e-38) * np.float32(0.5) != 0
    np.testing.assert_array_equal(run(x + 4)[0][:, 0], np.full(64, 2, np.float32))


def test_an_executable_goes_with_its_last_reference() -> None:
    run = Executable(chain(3, 4), 2)
    run(ramp(4))
    gone = weakref.ref(run)
    arena = weakref.ref(run.arena)
    del run
    gc.collect()
    assert gone() is None
    assert arena() is None


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_in_several_threads(threads: int) -> None:
    shared = Executable(reversing(6, 8), threads)
    failures: list[object] = []

    def call(seed: int) -> None:
        own = Executable(chain(4, 5 + seed, steps=2), threads)
        x, y = ramp(8) * seed, ramp(5 + seed)
        for _ in range(60):
            if not (shared(x)[0] == x + 6).all() or not (own(y)[0] == y + 4).all():
                failures.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not failures
    assert not any(caller.is_alive() for caller in callers)
