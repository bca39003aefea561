"""The measured peaks do the work they are timed for; layers are set beside them rightly."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from striate.cli.bench import print_layers
from striate.compiler.program import Kernel, Program, Step
from striate.compiler.target import Target
from striate.runtime import peak, roofline
from striate.runtime.roofline import Limits, attained, timed_phases


@pytest.fixture(params=["avx512", "avx2", "neon", "generic"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Each target that runs here, in the place of the host."""
    host = Target.host()
    target = replace(Target.named(request.param), triple=host.triple)
    if not Target.named(request.param).runs_here():
        pytest.skip(f"this CPU cannot run {request.param} code")
    monkeypatch.setattr(Target, "host", staticmethod(lambda: target))
    peak._kernel.cache_clear()
    yield target
    peak._kernel.cache_clear()


def test_every_chain_of_the_fma_loop_runs_every_turn(target: Target) -> None:
    """x = x / 2 + 1 from 1: after n turns 2 - 2^-n, summed over the chains."""
    lanes = target.lanes
    operands = np.repeat(np.array([1.0, 0.5], np.float32), lanes)
    sink = np.zeros((2, 64), np.float32)
    calls = [(7, operands.ctypes.data, row.ctypes.data) for row in sink]
    assert peak._together(peak._kernel("fma", peak._fma_ir()), calls) > 0
    assert (sink[:, :lanes] == peak._accumulators() * (2 - 2.0**-7)).all()
    assert not sink[:, lanes:].any()


@pytest.mark.parametrize("streams", peak._STREAMS)
@pytest.mark.parametrize("ahead", peak._AHEAD)
def test_the_reading_loops_read_every_byte(target: Target, streams: int, ahead: int) -> None:
    lanes = target.lanes
    turns = 5
    part = turns * peak._UNROLL * peak._LINE
    data = np.random.default_rng(0).integers(0, 2**31, streams * part // 4, np.int32)
    sink = np.zeros(64, np.int32)
    kernel = peak._kernel(f"read{streams}_{ahead}", peak._read_ir(streams, ahead))
    peak._together(kernel, [(turns, data.ctypes.data, part, sink.ctypes.data)])
    assert (sink[:lanes] == np.bitwise_xor.reduce(data.reshape(-1, lanes))).all()


def test_peaks_are_those_of_a_computer() -> None:
    assert 0.5 < peak.fma_peak(1, seconds=0.02) < 2000
    read = peak.memory_bandwidth(2)
    assert all(1e8 < read() < 1e13 for _ in range(3))
    with pytest.raises(ValueError, match="threads is 0, expected 1 or more"):
        peak.fma_peak(0)
    with pytest.raises(ValueError, match="threads is -1"):
        peak.memory_bandwidth(-1)


def two_phase_program() -> Program:
    """A convolution, then two kernels side by side."""
    kernel = Kernel("k", "direct", "", "", "", b"", 0)
    first = Step("conv", 0, 1, (), multiply_adds=500, bytes_moved=10)
    left = Step("left", 0, 1, (), multiply_adds=100, bytes_moved=3000)
    right = Step("right", 1, 1, (), multiply_adds=100, bytes_moved=1000)
    pool = replace(kernel, schedule="pooling")
    return Program((kernel, pool), ((first,), (left, right)), None, None, 0, (), ())


def test_timed_phases_hold_their_work() -> None:
    limits = Limits(flops=1000.0, bandwidth=1000.0)
    conv, both = timed_phases(two_phase_program(), (2.0, 8.0))
    assert (conv.flops, conv.least_seconds(limits)) == (500.0, 1.0)
    assert (both.label, both.schedule) == ("left | right", "direct | pooling")
    # 4000 bytes take 4 s, 200 multiply-adds 0.4 s: memory is the limit.
    assert (both.flops, both.least_seconds(limits)) == (50.0, 4.0)
    assert (conv.bandwidth, both.bandwidth) == (5.0, 500.0)
    assert (conv.bound(limits), both.bound(limits)) == ("compute", "memory")
    assert (attained([conv], limits), attained([conv, both], limits)) == (0.5, 0.5)
    with pytest.raises(ValueError, match="1 times for 2 phases"):
        timed_phases(two_phase_program(), (2.0,))


def test_borders_are_named_where_they_are_alone() -> None:
    program = two_phase_program()
    border = Step("(border)", 1, 1, (), multiply_adds=0, bytes_moved=5)
    copy = Step("", 0, 1, (), multiply_adds=0, bytes_moved=5)
    program = replace(program, phases=((border, program.phases[0][0]), (border,), (copy,)))
    first, second, third = timed_phases(program, (1.0, 1.0, 0.0))
    assert (first.label, first.schedule, first.bytes_moved) == ("conv", "direct", 15)
    assert (second.label, second.schedule) == ("(border)", "pooling")
    assert (third.label, third.flops) == ("(copy)", 0.0)


def test_layers_and_limits_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are medians of the rounds."""
    turns: list[str] = []
    times = iter([(2.0, 8.0), (4.0, 16.0), (2.2, 8.2)])
    peaks = iter([10.0, 5.0, 9.0])
    rates = iter([3.0, 40.0, 4.0])

    class Measured:
        program = two_phase_program()
        threads = 2

        def profile(self, *_: object, repeat: int) -> tuple[float, ...]:
            turns.append("network")
            return next(times)

    def peak(threads: int, seconds: float) -> float:
        turns.append("peak")
        return next(peaks)

    monkeypatch.setattr(roofline, "fma_peak", peak)

    def bandwidth() -> float:
        turns.append("memory")
        return next(rates)

    monkeypatch.setattr(roofline, "memory_bandwidth", lambda threads: bandwidth)
    phases, limits = roofline.against_limits(Measured(), rounds=3)  # type: ignore[arg-type]
    assert turns == ["memory", "peak", "network"] * 3
    assert [phase.seconds for phase in phases] == [2.2, 8.2]
    assert limits == Limits(9e9, 4.0)


def test_the_table_of_layers_ends_with_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_layers(timed_phases(two_phase_program(), (2.0, 6.0)), Limits(1000.0, 1000.0))
    title, _, conv, both, last = capsys.readouterr().out.splitlines()
    assert title.split()[0] == "layer"
    # 1400 operations in 8 s; at the limits the phases would take 1 s and 4 s.
    whole = ["all", "phases", "8.00", "s", "100.0%", "0.0", "18%", "0.00", "0.0", "50%", "62%"]
    assert last.split() == whole
    assert conv.split() == [
        "conv",
        "direct",
        "2.00",
        "s",
        "25.0%",
        "0.0",
        "50%",
        "0.00",
        "0.0",
        "0%",
        "50%",
    ]
    assert both.split()[-1] == "67%"
