"""The race on tiny networks, with peers that are made here: what it counts, compares and writes."""

import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from golden_numbers import logits
from typer.testing import CliRunner, Result

from striate.cli.main import app
from striate.layers.arguments import Array
from striate.models import find
from striate.pictures import figures
from striate.race import cases, engines, export, heats, plot, report, starts
from striate.race.cases import Case
from striate.race.engines import OURS, Engine, Runner
from striate.race.files import Files
from striate.race.heats import Heat, Lane, Pace, run_heat

TINY = "squeezenet1_1"
CASE = Case(TINY, 1, 1)
QUICK = Pace(rounds=2, seconds=0.0, rest=0.0)
DELAY = 0.05


def runner(answer: Array, seconds: float) -> Runner:
    def run() -> Array:
        time.sleep(seconds)
        return answer

    return run


def slow(files: Files, case: Case, kept: Path | None) -> Runner:
    """A peer that gives our answers, late."""
    ours = engines.find(OURS).load(files, case, kept)()
    return runner(np.array(ours), DELAY)


def liar(files: Files, case: Case, kept: Path | None) -> Runner:
    """A peer that is fast and wrong."""
    return runner(np.full((case.batch, 1000), 3.0, np.float32), 0.0)


def broken(files: Files, case: Case, kept: Path | None) -> Runner:
    raise RuntimeError("no such operator")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("race"))


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that need nothing installed, on images of a size that is quick."""

    def nothing(files: Files, case: Case) -> None:
        return None

    made = {
        name: Engine(nothing, load, packages)
        for name, load, packages in (
            ("slow", slow, ()),
            ("liar", liar, ()),
            ("broken", broken, ()),
            ("absent", slow, ("no_such_package",)),
        )
    }
    monkeypatch.setattr(engines, "PEERS", made)
    monkeypatch.setattr(Case, "images", lambda case: cases.images(case.batch, 64, 64))
    monkeypatch.setattr(engines, "version", lambda name: "1.0")


def striate(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["race", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


def race(files: Files, *arguments: str | Path) -> Result:
    """One tiny network, without starts."""
    return striate(
        TINY, "--threads", "1", "--rounds", "1", "--no-starts", "--files", files.folder, *arguments
    )


def entrants(*names: str) -> dict[str, Engine]:
    return {name: engines.find(name) for name in (*names, OURS)}


def lane(engine: str, *rounds: float, least: float = math.inf, difference: float = 0.0) -> Lane:
    return Lane(engine, list(rounds), least, difference)


def heat(*lanes: Lane, network: str = "a") -> Heat:
    return Heat(Case(network, 1, 1), lanes)


@pytest.mark.usefixtures("peers")
def test_a_slow_peer_loses_and_is_counted(files: Files) -> None:
    found = run_heat(CASE, entrants("slow"), files, QUICK)
    ours, peer = found.lanes
    assert (ours.engine, ours.difference, len(ours.rounds)) == (OURS, 0.0, 2)
    assert (peer.engine, peer.difference, peer.counts) == ("slow", 0.0, True)
    assert peer.seconds >= DELAY > ours.seconds
    assert found.best_peer is peer
    assert found.ratio == peer.seconds / ours.seconds > 1


@pytest.mark.usefixtures("peers")
def test_a_peer_that_disagrees_is_named_and_not_counted(files: Files) -> None:
    found = run_heat(CASE, entrants("liar", "slow", "broken"), files, QUICK)
    assert found.best_peer is not None
    assert found.best_peer.engine == "slow"
    by_name = {lane.engine: lane for lane in found.lanes}
    assert by_name["liar"].rounds
    assert not by_name["liar"].counts
    assert by_name["broken"].problem == "RuntimeError: no such operator"
    results = report.Results("", "", {}, "auto", QUICK, [found])
    disagrees, failed = sorted(report.problems(results), key=lambda line: line.startswith("broken"))
    assert disagrees.startswith(f"liar disagrees on {TINY}, batch 1, 1 thread and is not counted")
    assert failed == f"broken did not run {TINY}, batch 1, 1 thread: RuntimeError: no such operator"
    assert "differs" in report.heat_table([found]).rows[0]


@pytest.mark.usefixtures("peers")
def test_the_command_prints_and_writes(files: Files, tmp_path: Path) -> None:
    result = race(
        files, "--batch", "1", "--batch", "2", "--peers", "slow", "--json", tmp_path / "race.json",
        "--markdown", tmp_path / "race.md",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "batch 1, 1 thread" in result.stdout
    assert "batch 2, 1 thread" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 100
    record = json.loads((tmp_path / "race.json").read_text())
    assert set(record) == {
        "command", "date", "machine", "versions", "algorithm", "rounds", "seconds", "rest",
        "geometric_means", "heats", "starts", "rooflines",
    }  # fmt: skip
    first, second = record["heats"]
    assert (first["network"], first["batch"], first["threads"]) == (TINY, 1, 1)
    assert second["batch"] == 2
    assert set(first) == {
        "network", "batch", "threads", "best_peer", "ratio", "least_ratio", "lanes"
    }  # fmt: skip
    ours, peer = first["lanes"]
    assert set(ours) == set(peer) == {
        "engine", "seconds", "least_seconds", "rounds", "difference", "counts", "problem"
    }  # fmt: skip
    assert first["best_peer"] == "slow"
    assert first["ratio"] == pytest.approx(peer["seconds"] / ours["seconds"])
    assert record["geometric_means"][0]["ratio"] == pytest.approx(first["ratio"])
    page = (tmp_path / "race.md").read_text()
    assert f"| {TINY} | " in page
    assert "## Batch 2, 1 thread" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["race.json", "race.md"]


@pytest.mark.usefixtures("peers")
def test_a_wrong_peer_gives_exit_code_1(files: Files) -> None:
    result = race(files, "--peers", "slow,liar")
    assert result.exit_code == 1
    assert "liar disagrees on squeezenet1_1" in result.stdout


@pytest.mark.usefixtures("peers")
def test_a_roofline_goes_into_the_report(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from striate.cli import networks

    whole = networks.network
    monkeypatch.setattr(networks, "network", lambda name, size, batch: whole(name, "64", batch))
    page = tmp_path / "race.md"
    result = race(files, "--peers", "slow", "--roofline", TINY, "--markdown", page)
    assert result.exit_code == 0, result.output
    assert re.search(r"\n\| features.0 \| .* \| (compute|memory) \| \d+% \|\n", page.read_text())


@pytest.mark.usefixtures("peers")
def test_what_cannot_be_raced_is_said(files: Files, tmp_path: Path) -> None:
    for arguments, said in (
        (["lenet"], "lenet"),
        ([TINY, "--roofline", "lenet"], "lenet"),
        ([TINY, "--peers", "tensorflow"], "no peer 'tensorflow'; there are slow, liar"),
        ([TINY, "--peers", "absent"], "none of the peers is installed: pip install"),
        ([TINY, "--peers", "slow", "--json", tmp_path / "no" / "race.json"], "there is no folder"),
        ([TINY, "--peers", "slow", "--json", tmp_path], "is a folder"),
        ([TINY, "--peers", "slow", "--plot", tmp_path / "race.gif"], ".png, .svg or .pdf"),
        ([TINY, "--rounds", "0"], "0"),
    ):
        result = striate(*arguments, "--files", files.folder)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert result.stdout == ""


@pytest.mark.usefixtures("peers")
def test_an_absent_peer_is_left_out_and_said(files: Files) -> None:
    result = race(files, "--peers", "slow,absent")
    assert result.exit_code == 0
    assert result.stderr == "absent is left out: not installed: no_such_package\n"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root writes anywhere")
@pytest.mark.usefixtures("peers")
def test_a_read_only_folder_is_said_before_the_race(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    result = race(files, "--peers", "slow", "--json", folder / "race.json")
    assert result.exit_code == 2
    assert "read-only" in result.stderr


def test_ratio_is_the_best_peer_over_ours_by_medians() -> None:
    won = heat(lane(OURS, 1.0, 9.0, 1.0), lane("x", 2.0, 2.0, 0.1), lane("y", 3.0, 3.0, 3.0))
    lost = heat(lane(OURS, 4.0), lane("x", 2.0), lane("y"))
    alone = heat(lane(OURS), lane("x", 2.0))
    wrong = heat(lane(OURS, 1.0), lane("x", 0.5, difference=math.nan))
    assert (won.ratio, lost.ratio) == (2.0, 0.5)
    assert math.isnan(alone.ratio)
    assert math.isnan(wrong.ratio)
    mean = heats.geometric_mean([each.ratio for each in (won, lost, alone)])
    assert mean == pytest.approx(1.0)
    assert math.isnan(heats.geometric_mean([]))


def test_least_ratio_is_of_single_calls() -> None:
    found = heat(lane(OURS, 4.0, least=1.0), lane("x", 2.0, least=2.0), lane("y", 3.0, least=1.5))
    assert (found.ratio, found.least_ratio) == (0.5, 1.5)
    assert math.isnan(heat(lane(OURS, 4.0)).least_ratio)


def test_differences_are_relative_and_shapes_must_agree() -> None:
    expected = np.array([[1.0, -4.0]], np.float32)
    given = np.array([[1.5, -4.0]], np.float32)
    assert heats.relative_difference(given, expected) == 0.125
    with pytest.raises(ValueError, match=r"\(2,\), ours \(1, 2\)"):
        heats.relative_difference(np.zeros(2, np.float32), expected)


def test_numbers_that_are_none_become_null() -> None:
    results = report.Results("c", "d", {}, "auto", QUICK, [heat(lane(OURS), lane("x", 2.0))])
    text = report.as_json(results)
    (first,) = json.loads(text)["heats"]
    assert first["ratio"] is None
    assert first["lanes"][0]["least_seconds"] is None


def test_a_start_is_a_process_of_its_own(files: Files) -> None:
    case = Case(TINY, 1, 1)
    engines.find(OURS).prepare(files, case)
    found = starts.measure(case, OURS, "auto", files.folder)
    assert found.problem == ""
    assert found.cold is not None
    assert found.warm is not None
    assert found.cold.first_answer > found.warm.first_answer > found.warm.call > 0
    assert 20e6 < found.warm.peak_bytes < 2e9
    tables = report.start_tables([found])
    assert [table.rows[0][0] for table in tables] == [TINY] * 4
    failed = starts.measure(case, "tensorflow", "auto", files.folder)
    assert "no peer 'tensorflow'" in failed.problem
    assert report.start_tables([failed])[0].rows == ((TINY, "-"),)


def test_weights_and_images_are_the_golden_ones() -> None:
    """So that the race's own numbers can be held to torchvision's."""
    network = cases.network("squeezenet1_0")
    found = network(cases.images(2, *find("squeezenet1_0").input).transpose(0, 2, 3, 1))
    expected = logits()["squeezenet1_0/logits"]
    assert heats.relative_difference(found, expected) < 1e-4


@pytest.mark.parametrize("name", [*cases.NETWORKS, "efficientnet_lite0", "vgg11_bn"])
def test_every_network_is_written_as_an_onnx_model(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    from striate.models import create

    height, width = find(name).input
    graph = create(name).trace((1, height, width, 3), abstract=True)
    model = onnx.load_from_string(export.export(graph))
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert set(operators) <= {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Flatten", "Gemm",
        "GlobalAveragePool", "Identity", "MaxPool", "Relu", "Reshape", "Slice", "Transpose",
    }  # fmt: skip
    assert operators.count("Conv") >= 5


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_an_onnx_model_means_what_the_network_does(name: str) -> None:
    """By ONNX's own reference implementation: ceil mode, shuffles and depthwise layers."""
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    network = cases.network(name)
    images = cases.images(2, 64, 64)
    graph = network.trace((2, 64, 64, 3))
    (found,) = ReferenceEvaluator(export.export(graph)).run(["y"], {"x": images})
    expected = network(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    assert heats.relative_difference(found, expected) < 1e-4


def test_an_equation_that_is_no_operator_is_named() -> None:
    pytest.importorskip("onnx")
    from striate.models import create

    graph = create("alexnet_2012").trace((1, 227, 227, 3), abstract=True)
    with pytest.raises(export.ExportError, match=r"features.2 is no ONNX operator .*exp\(-0.75"):
        export.export(graph)


@pytest.mark.parametrize("suffix", figures.SUFFIXES)
def test_the_picture_is_small_and_names_everything(suffix: str) -> None:
    pytest.importorskip("matplotlib")
    results = report.Results("c", "d", {OURS: "1", "x": "1"}, "auto", QUICK)
    for batch, threads in ((1, 1), (1, 2), (8, 1)):
        for number, name in enumerate(cases.NETWORKS):
            lanes = (lane(OURS, 1.0), lane("x", 1.0 + number / 10))
            results.heats.append(Heat(Case(name, batch, threads), lanes))
    drawn = plot.draw(results, suffix)
    assert len(drawn) < 60_000 or suffix == ".png"
    assert drawn == plot.draw(results, suffix)
    if suffix == ".svg":
        text = drawn.decode()
        for name in (*cases.NETWORKS, "batch 8, 1 thread", "x", OURS):
            assert f">{name}</text>" in text
