"""What was measured is remembered, followed where it fits, and forgotten."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from striate.cli.main import app
from striate.compiler import compile_graph
from striate.compiler import tuned as remembering
from striate.compiler.choose import candidates, choose, trial
from striate.compiler.target import Target
from striate.compiler.tuned import Tuned, choice_key
from striate.layers import Conv2d, MaxPool2d, ReLU, Sequential
from striate.network.graph import Computed, Graph
from striate.notation.ir import Statement
from striate.runtime import tune as tuning
from striate.runtime.executable import Executable
from striate.runtime.tune import Measured, tune

TARGET = Target.host()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    """What is remembered, of this test alone."""
    store = Tuned(tmp_path / "tuned.json")
    for module in (remembering, tuning, choose.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "tuned", lambda: store)
        else:
            monkeypatch.setattr(module, "tuned", lambda: store)
    return store


def graph() -> Graph:
    network = Sequential(Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(32, 16, 1))
    return network.trace((1, 20, 20, 16))


def convolution() -> Computed:
    """The first convolution, as the network draws it."""
    return next(node for node in graph().nodes() if isinstance(node, Computed))


def key_of(node: Computed, algorithm: str = "auto") -> str:
    known = tuple(name != "x" for name, _ in node.operands)
    return choice_key(node.statement, known, TARGET, algorithm)


def test_a_remembered_choice_is_followed_where_it_fits(store: Tuned) -> None:
    node = convolution()
    first, second = (schedule for schedule, _ in candidates(node, TARGET)[:2])
    assert choose(node, TARGET) is first
    store.remember({key_of(node): second.name})
    assert choose(node, TARGET) is second
    store.remember({key_of(node): "no such schedule"})
    assert choose(node, TARGET) is first
    store.remember({key_of(node): "winograd", key_of(node, "direct"): "winograd"})
    assert choose(node, TARGET).name == "winograd"
    assert choose(node, TARGET, "direct").name == "direct"
    store.remember({key_of(node): None})
    assert choose(node, TARGET) is first


def test_the_key_holds_all_that_a_choice_depends_on() -> None:
    node = convolution()
    other = next(n for n in graph().nodes() if isinstance(n, Computed) and n.label == "2")
    known = (True, False, True)
    keys = {
        choice_key(node.statement, known, TARGET, "auto"),
        choice_key(other.statement, known, TARGET, "auto"),
        choice_key(node.statement, (False, False, True), TARGET, "auto"),
        choice_key(node.statement, known, Target.named("generic"), "auto"),
        choice_key(node.statement, known, TARGET, "direct"),
    }
    assert len(keys) == 5


def test_choices_are_there_for_the_next_process(store: Tuned) -> None:
    store.remember({"a": "direct", "b": "generic"})
    assert Tuned(store.path).choices() == {"a": "direct", "b": "generic"}
    Tuned(store.path).remember({"b": None, "c": "window"})
    assert Tuned(store.path).choices() == {"a": "direct", "c": "window"}
    assert [path.name for path in store.path.parent.iterdir()] == ["tuned.json"]
    assert store.forget() == 2
    assert not store.path.exists()
    assert store.choices() == {}
    assert store.forget() == 0


def test_choices_of_other_sources_are_not_followed(
    store: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remember({"a": "direct"})
    monkeypatch.setattr(remembering, "version", lambda: "other sources")
    assert Tuned(store.path).choices() == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"choices": {"a": "b"}}', '{"version": "V", "choices": 3}']
)
def test_a_broken_file_remembers_nothing(store: Tuned, content: str) -> None:
    store.path.write_text(content.replace("V", remembering.version()))
    assert Tuned(store.path).choices() == {}
    store.remember({"a": "direct"})
    assert Tuned(store.path).choices() == {"a": "direct"}


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Tuned(tmp_path / "file" / "tuned.json")
    store.remember({"a": "direct"})
    assert store.choices() == {"a": "direct"}
    assert Tuned(store.path).choices() == {}


def test_the_number_of_choices_is_bounded(store: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "MOST_CHOICES", 3)
    store.remember({str(number): "direct" for number in range(5)})
    assert list(Tuned(store.path).choices()) == ["2", "3", "4"]


def test_a_trial_takes_its_schedule_wherever_it_fits(store: Tuned) -> None:
    drawn = graph()
    image = np.random.default_rng(0).standard_normal((1, 20, 20, 16), np.float32)
    expected = Executable(compile_graph(drawn), 1)(image)[0]
    for name in ("direct", "im2col", "winograd"):
        with trial(name) as made:
            program = compile_graph(drawn)
        schedules = {kernel.schedule for kernel in program.kernels}
        assert name in schedules
        assert {name for _, name in made.chosen.values()} <= schedules
        np.testing.assert_allclose(Executable(program, 1)(image)[0], expected, rtol=1e-4, atol=1e-5)
    with trial(None) as made:
        compile_graph(drawn)
    # The pooling, "2", is part of the first convolution's kernel.
    assert {"0", "3"} <= set(made.chosen)


def test_only_what_is_clearly_faster_is_the_best() -> None:
    little = Measured("a", "k", "direct", {"direct": 1.0, "im2col": 0.98})
    much = Measured("a", "k", "direct", {"direct": 1.0, "im2col": 0.5})
    assert (little.best, little.loss) == ("direct", 0.0)
    assert (much.best, much.loss) == ("im2col", 1.0)


def test_a_bad_estimate_is_found_out(store: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an estimate that prefers im2col, the measurement finds something faster."""
    from striate.compiler.schedules import im2col

    honest = im2col.seconds

    def boastful(statement: Statement, target: Target) -> float | None:
        seconds = honest(statement, target)
        return None if seconds is None else seconds / 2

    monkeypatch.setattr(im2col, "seconds", boastful)
    network = Sequential(Conv2d(64, 64, 3, padding=1), ReLU())
    drawn = network.trace((1, 56, 56, 64))
    found = tune(drawn, 1, "direct")
    (one,) = found.statements
    assert (one.estimated, one.best) == ("im2col", "direct")
    assert one.loss > 0.03
    with trial(None) as made:
        compile_graph(drawn, algorithm="direct")
    assert {name for _, name in made.chosen.values()} == {"im2col"}
    if found.after <= found.before:
        assert store.choices() == {one.key: "direct"}
        program = compile_graph(drawn, algorithm="direct")
        assert "im2col" not in {kernel.schedule for kernel in program.kernels}
    assert tune(drawn, 1, "direct", keep=False).after > 0


def test_what_makes_the_network_slower_is_not_kept(
    store: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remember({"other": "generic"})
    times = iter([[1.0], [1.0, 2.0]])
    monkeypatch.setattr(tuning, "_whole", lambda executables, images: next(times))
    better = Measured("0", "a", "winograd", {"winograd": 2.0, "direct": 1.0})
    monkeypatch.setattr(tuning, "_measured", lambda variants: [better])
    found = tune(graph(), 1)
    assert found.after == 2.0
    assert store.choices() == {"other": "generic"}


def striate(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["tune", *arguments])
    assert "Traceback" not in result.output
    return result


def test_the_command_measures_and_forgets(store: Tuned) -> None:
    size = ("squeezenet1_1", "--input", "64", "--threads", "1")
    result = striate(*size, "--json", "--no-keep")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["model"], report["input"]) == ("squeezenet1_1", [1, 64, 64, 3])
    assert report["seconds_before"] > 0
    first = report["statements"][0]
    assert set(first) == {"layer", "estimated", "best", "loss", "seconds"}
    assert first["estimated"] in first["seconds"]
    assert store.choices() == {}
    store.remember({"a": "direct"})
    assert striate("--forget").stdout == "1 remembered choice forgotten\n"
    assert store.choices() == {}
    assert striate().exit_code == 2
    assert "no MODEL given" in striate().stderr
    assert striate("lenet").exit_code == 2


def test_the_command_prints_a_table(store: Tuned) -> None:
    result = striate("squeezenet1_1", "--input", "64", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:4] == ["layer", "estimated", "time", "best"]
    assert "of which the estimates' choices lose" in result.stdout
    assert result.stderr == ""


def test_asking_costs_little() -> None:
    node = convolution()
    start = time.perf_counter()
    for _ in range(100):
        key_of(node)
    assert time.perf_counter() - start < 0.1
