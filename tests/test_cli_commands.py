"""The commands as a person uses them: what they print, where, and how they end."""

import csv
import io
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from striate.cli.main import app

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"
COFFEE, CAT = PHOTOS / "coffee.png", PHOTOS / "chelsea.png"
STRIATE = [sys.executable, "-c", "from striate.cli.main import run; run()"]


def striate(*arguments: str | Path, input: bytes | None = None) -> Result:
    """`striate` within this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=input)
    assert "Traceback" not in result.output
    return result


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_classify_names_what_a_photo_shows() -> None:
    result = striate("classify", COFFEE, "--top", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *guesses = result.stdout.splitlines()
    assert first == str(COFFEE)
    assert len(guesses) == 3
    assert re.fullmatch(r" +9\d\.\d%  espresso", guesses[0])


def test_a_compiled_network_says_what_its_network_says(tmp_path: Path) -> None:
    path = tmp_path / "lite0.striate"
    made = striate("compile", "efficientnet_lite0", "-o", path)
    assert (made.exit_code, made.stderr) == (0, "")
    assert made.stdout.startswith(f"{path}: efficientnet_lite0, 1")
    said = striate("compile", "efficientnet_lite0", "-o", path, "--json")
    assert json.loads(said.stdout) == {
        "model": "efficientnet_lite0",
        "input": [1, 224, 224, 3],
        "algorithm": "auto",
        "file": str(path),
        "bytes": path.stat().st_size,
    }
    plain, compiled = (
        striate("classify", COFFEE, "--model", name) for name in ("efficientnet_lite0", path)
    )
    assert compiled.exit_code == 0
    assert compiled.stdout == plain.stdout


def test_the_answer_takes_less_than_a_second_of_the_cpu() -> None:
    """From a warm cache. On one thread the CPU's time is what a quiet machine's clock shows."""
    command = [*STRIATE, "classify", str(COFFEE), "--threads", "1"]
    seconds = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1


def test_classify_json_is_an_object_a_line() -> None:
    result = striate("classify", COFFEE, CAT, "--json", "--top", "2", "--threads", "1")
    espresso, cat = lines(result)
    assert list(espresso) == ["file", "model", "top"]
    assert (espresso["file"], espresso["model"]) == (str(COFFEE), "efficientnet_lite0")
    top = espresso["top"]
    assert isinstance(top, list)
    assert list(top[0]) == ["index", "name", "synset", "probability"]
    assert (top[0]["index"], top[0]["name"], top[0]["synset"]) == (967, "espresso", "n07920052")
    assert 0.9 < top[0]["probability"] < 1
    assert "cat" in str(cat["top"])


def test_classify_csv_reads_back() -> None:
    result = striate("classify", COFFEE, CAT, "--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["file"], row["rank"]) for row in rows] == [
        (str(photo), rank) for photo in (COFFEE, CAT) for rank in "12"
    ]
    assert rows[0]["name"] == "espresso"
    assert 0.9 < float(rows[0]["probability"]) < 1


def test_classify_folder_goes_below_it_in_order(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    for place in (tmp_path / "photo10.png", tmp_path / "photo9.png", below / "a.png"):
        place.write_bytes(COFFEE.read_bytes())
    (tmp_path / "notes.txt").write_text("not an image")
    result = striate("classify", tmp_path, "--json", "--top", "1")
    assert result.exit_code == 0
    files = [Path(str(line["file"])).relative_to(tmp_path).as_posix() for line in lines(result)]
    assert sorted(files) == ["below/a.png", "photo10.png", "photo9.png"]
    assert files.index("photo9.png") < files.index("photo10.png")


def test_classify_reads_standard_input() -> None:
    result = striate("classify", "-", "--json", "--top", "1", input=COFFEE.read_bytes())
    (line,) = lines(result)
    assert line["file"] == "-"
    assert "espresso" in str(line["top"])


@pytest.mark.parametrize("batch", [2, 8])
def test_classify_in_batches_says_the_same(batch: int) -> None:
    one = lines(striate("classify", PHOTOS, "--json", "--top", "3"))
    many = lines(striate("classify", PHOTOS, "--json", "--top", "3", "--batch", str(batch)))
    assert len(one) == 5
    for left, right in zip(one, many, strict=True):
        assert left["file"] == right["file"]
        tops = left["top"], right["top"]
        assert isinstance(tops[0], list)
        assert isinstance(tops[1], list)
        assert [guess["index"] for guess in tops[0]] == [guess["index"] for guess in tops[1]]
        expected = [guess["probability"] for guess in tops[0]]
        assert [guess["probability"] for guess in tops[1]] == pytest.approx(expected, abs=1e-4)


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(COFFEE.read_bytes()[:999])
    result = striate("classify", bad, COFFEE, tmp_path / "gone.png", "--json", "--top", "1")
    assert result.exit_code == 1
    assert [line["file"] for line in lines(result)] == [str(COFFEE)]
    assert f"{bad}: " in result.stderr
    assert "gone.png: no such file" in result.stderr
    assert result.stderr.count("striate: ") == 2


def test_a_file_named_twice_is_classified_once() -> None:
    assert len(lines(striate("classify", COFFEE, COFFEE, PHOTOS, "--json"))) == 5


def test_head_may_close_the_pipe() -> None:
    command = f"{sys.executable} -c '{STRIATE[2]}' classify {PHOTOS} --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["file"].endswith(".png")


def test_progress_shows_on_a_terminal_only() -> None:
    import pty

    leader, follower = pty.openpty()
    done = subprocess.run(
        [*STRIATE, "classify", PHOTOS, "--json", "--top", "1"],
        stdout=subprocess.PIPE,
        stderr=follower,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(leader)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert b"classifying" in shown
    assert b"coffee" not in shown


def test_classify_with_a_weight_file_of_ones_own(tmp_path: Path) -> None:
    import striate as st

    model = st.models.create("squeezenet1_1", classes=3)
    path = tmp_path / "mine.safetensors"
    st.weights.write_safetensors(path, model.state_dict())
    arguments = ("--model", "squeezenet1_1", "--weights", path, "--json", "--top", "9")
    (line,) = lines(striate("classify", COFFEE, *arguments))
    top = line["top"]
    assert isinstance(top, list)
    assert sorted(guess["name"] for guess in top) == ["class 0", "class 1", "class 2"]
    assert sum(guess["probability"] for guess in top) == pytest.approx(1)


def test_the_default_network_is_the_registrys() -> None:
    from striate.cli.choices import DEFAULT_MODEL
    from striate.models.registry import DEFAULT

    assert DEFAULT_MODEL == DEFAULT


def test_models_lists_them_all() -> None:
    entries = lines(striate("models", "--json"))
    by_name = {str(entry["name"]): entry for entry in entries}
    assert len(by_name) == 39
    assert by_name["resnet50"]["parameters"] == 25_557_032
    assert by_name["resnet50"]["multiply_adds"] == 4_089_184_256
    assert by_name["inception_v3"]["input"] == [299, 299]
    table = striate("models").stdout
    assert all(name in table for name in by_name)


def test_inspect_adds_up() -> None:
    (net,) = lines(striate("inspect", "resnet18", "--json"))
    assert (net["parameters"], net["multiply_adds"]) == (11_689_512, 1_814_073_344)
    rows = net["layers"]
    assert isinstance(rows, list)
    assert sum(row["parameters"] for row in rows) == 11_689_512
    assert sum(row["multiply_adds"] for row in rows) == 1_814_073_344
    first = rows[0]
    assert first["layer"] == "conv1"
    assert first["equation"].startswith("y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b, 2*p+u-3")
    assert (first["shape"], first["seconds"]) == ([1, 112, 112, 64], None)


def test_inspect_takes_another_size_and_batch() -> None:
    (net,) = lines(
        striate("inspect", "squeezenet1_1", "--json", "--input", "65x97", "--batch", "3")
    )
    assert net["input"] == [3, 65, 97, 3]
    rows = net["layers"]
    assert isinstance(rows, list)
    assert rows[0]["shape"] == [3, 32, 48, 64]


def test_inspect_for_people_shows_equations_and_parts_for_training() -> None:
    text = striate("inspect", "googlenet").stdout
    assert "y[b,p,q,i] = max[u,v](x[b, 2*p+u, 2*q+v, i])" in text
    assert "13.0 M parameters (6.38 M in heads for training only)" in text
    # A concatenation is written as what it does.
    assert "y[b,p,q,i+64] = x1[b,p,q,i]" in text


def test_inspect_times_kernels() -> None:
    (net,) = lines(striate("inspect", "squeezenet1_1", "--json", "--input", "64", "--time"))
    rows = net["layers"]
    assert isinstance(rows, list)
    timed = {row["layer"] for row in rows if row["seconds"] is not None}
    assert "features.0" in timed
    assert all(row["seconds"] >= 0 for row in rows if row["seconds"] is not None)


def test_explain_equation_of_a_layer_and_of_a_module() -> None:
    one = striate("explain", "resnet18", "layer1.0.conv2").stdout
    assert one == "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b, p+u-1, q+v-1, i])\n"
    block = striate("explain", "resnet18", "layer1.0").stdout
    assert f"layer1.0.conv2: {one}" in block
    assert len(block.splitlines()) == 7
    found = json.loads(striate("explain", "resnet18", "layer1.0", "--json").stdout)
    forms = {layer: form["text"] for form in found["forms"] for layer in form["layers"]}
    assert len(forms) == 7
    assert forms["layer1.0.conv2"] == one.rstrip()


@pytest.mark.parametrize(
    ("stage", "target", "needles"),
    [
        ("plan", None, ["features.3.squeeze", "relu(sum["]),
        ("llvm", "avx2", ["define ", "<8 x float>", "@llvm.fma"]),
        ("asm", "avx512", ["%zmm", "vfmadd"]),
        ("asm", "avx2", ["%ymm", "vfmadd"]),
        ("asm", "neon", ["fmla"]),
        ("asm", "generic", ["mulps"]),
    ],
)
def test_explain_shows_every_stage(stage: str, target: str | None, needles: list[str]) -> None:
    chosen = ("--target", target) if target else ()
    size = ("--input", "64")
    name = "features.3.squeeze"
    result = striate("explain", "squeezenet1_1", name, "--at", stage, *chosen, *size)
    assert result.exit_code == 0
    for needle in needles:
        assert needle in result.stdout


def test_the_algorithms_are_the_compilers() -> None:
    from striate.cli.choices import Algorithm
    from striate.compiler.choose import ALGORITHMS

    assert [algorithm.value for algorithm in Algorithm] == list(ALGORITHMS)


def test_explain_takes_an_algorithm() -> None:
    asked = ("explain", "vgg11", "features.3", "--at", "plan")
    assert "features.3: winograd on" in striate(*asked).stdout
    assert "features.3: direct on" in striate(*asked, "--algorithm", "direct").stdout
    unknown = striate(*asked, "--algorithm", "fft")
    assert unknown.exit_code == 2
    assert "'fft'" in unknown.stderr


def test_bench_and_inspect_take_an_algorithm() -> None:
    size = ("vgg11", "--json", "--input", "32", "--algorithm", "direct")
    (report,) = lines(striate("bench", *size, "--layers"))
    assert report["algorithm"] == "direct"
    rows = report["layers"]
    assert isinstance(rows, list)
    assert "direct" in {row["schedule"] for row in rows}
    assert "winograd" not in {row["schedule"] for row in rows}
    (net,) = lines(striate("inspect", *size, "--time"))
    assert net["algorithm"] == "direct"


def test_bench_measures() -> None:
    result = striate(
        "bench", "squeezenet1_1", "--json", "--layers", "--input", "64", "--threads", "1"
    )
    (report,) = lines(result)
    assert report["threads"] == 1
    assert isinstance(report["seconds"], float)
    assert isinstance(report["multiply_adds"], int)
    assert report["gflops"] == pytest.approx(2e-9 * report["multiply_adds"] / report["seconds"])
    assert isinstance(report["peak_gflops"], float)
    assert report["peak_share"] == pytest.approx(report["gflops"] / report["peak_gflops"])
    rows = report["layers"]
    assert isinstance(rows, list)
    first = next(row for row in rows if row["layer"].startswith("features.0"))
    assert first["gflops"] == pytest.approx(2e-9 * first["multiply_adds"] / first["seconds"])
    assert first["bytes_moved"] > 4 * 64 * 64 * 3
    assert isinstance(report["bandwidth_gbs"], float)
    flops, bandwidth = 1e9 * report["peak_gflops"], 1e9 * report["bandwidth_gbs"]
    least = max(2 * first["multiply_adds"] / flops, first["bytes_moved"] / bandwidth)
    assert first["roofline"] == pytest.approx(least / first["seconds"])
    rate = 1e-9 * first["bytes_moved"] / first["seconds"]
    assert first["gbs"] == pytest.approx(rate)
    assert first["bandwidth_share"] == pytest.approx(rate / report["bandwidth_gbs"])
    assert first["bound"] == "compute"


def test_a_linear_layer_is_bound_by_memory_and_says_its_share() -> None:
    size = ("alexnet", "--json", "--layers", "--sort", "--input", "64", "--threads", "1")
    (report,) = lines(striate("bench", *size))
    rows = report["layers"]
    assert isinstance(rows, list)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds, reverse=True)
    linear = next(row for row in rows if row["layer"].startswith("classifier.1"))
    assert linear["bound"] == "memory"
    assert linear["roofline"] == pytest.approx(linear["bandwidth_share"])
    assert linear["bytes_moved"] >= 4 * 9216 * 4096
    assert 0.2 < linear["bandwidth_share"] < 2


def test_bench_for_people() -> None:
    text = striate("bench", "squeezenet1_1", "--input", "64", "--layers").stdout
    assert re.search(r"squeezenet1_1 on 1 x 64 x 64 x 3, \d+ threads?: [\d.]+ (ms|µs)", text)
    assert re.search(r"GFLOP/s, \d+% of the measured peak of [\d.]+ GFLOP/s", text)
