"""Bad files and bad arguments: each has its clear error and its exit code, and none a traceback."""

import io
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import striate as st
from striate.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
COFFEE = ROOT / "examples" / "photos" / "coffee.png"
STRIATE = [sys.executable, "-c", "from striate.cli.main import run; run()"]


def encoded(image: Image.Image, form: str) -> bytes:
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims to be this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    crc = struct.pack(">I", zlib.crc32(chunk))
    data = struct.pack(">I", 1 << 20) + b"IDAT" + zlib.compress(bytes(99))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + crc + data


def small(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    return encoded(Image.fromarray(pixels), form)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


# Name of the file, its content, what is said.
IMAGES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("empty.png", b"", "the file is empty"),
    "text": ("text.jpg", b"just words, no picture\n", "not an image"),
    "web page": ("page.jpg", b"<!doctype html><html></html>", "web page"),
    "svg": ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "pdf": ("paper.png", b"%PDF-1.7\n1 0 obj\n", "PDF"),
    "zip": ("photos.jpg", b"PK\x03\x04" + bytes(64), "zip archive"),
    "video": ("clip.jpg", b"\0\0\0\x18ftypmp42" + bytes(64), "video"),
    "heic": ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
    "cut off jpeg": ("cut.jpg", small("JPEG")[:300], "cut off"),
    "cut off png": ("cut.png", small("PNG")[:500], "cut.png: cannot be read"),
    "only a header": ("header.png", png_of_size(60, 60), "header.png: "),
    "damaged png": ("rot.png", flipped(small("PNG"), 200), "rot.png: cannot be read"),
    "bomb": ("bomb.png", png_of_size(60_000, 60_000), "too many pixels"),
    "slender": ("line.png", encoded(Image.new("RGB", (5000, 1)), "PNG"), "5000 x 1"),
    "zeros": ("zeros.jpg", bytes(4096), "not an image"),
    "eps": ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
}


class Dangerous:
    """A pickle that would make a file where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("STRIATE-WAS-HERE"),)  # type: ignore[return-value]


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


WEIGHTS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("empty.pth", b"", "empty.pth"),
    "text": ("text.pth", b"no weights here\n" * 9, "text.pth"),
    "web page": ("page.pth", b"<html>404 not found</html>", "page.pth"),
    "dangerous": ("evil.pth", pickle.dumps(Dangerous()), "evil.pth"),
    "no tensors": ("list.pth", pickle.dumps([1, 2, 3]), "list.pth"),
    "cut off zip": ("cut.pth", b"PK\x03\x04" + bytes(100), "cut.pth"),
    "huge header": ("huge.safetensors", b"\xff" * 8 + b"{}", "huge.safetensors"),
    "cut off": (
        "cut.safetensors",
        safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', bytes(4)),
        "cut.safetensors",
    ),
    "no tensor in it": ("none.safetensors", safetensors(b"{}"), "holds no tensors"),
    "another network's": (
        "other.safetensors",
        safetensors(b'{"fc.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}', bytes(4)),
        "missing",
    ),
}

# Arguments, exit code, what is said. PHOTO is a good image.
FLAGS: dict[str, tuple[list[str], int, str]] = {
    "no image": (["classify"], 2, "Missing argument"),
    "empty name": (["classify", ""], 2, "empty name"),
    "no such file": (["classify", "nowhere.jpg"], 2, "nowhere.jpg: no such file"),
    "near miss": (["classify", str(COFFEE)[:-1]], 2, "did you mean"),
    "null in name": (["classify", "a\0b"], 2, "striate: "),
    "unknown model": (["classify", "PHOTO", "--model", "resnet51"], 2, "did you mean resnet"),
    "empty model": (["classify", "PHOTO", "--model", ""], 2, "no network ''"),
    "no such weights": (["classify", "PHOTO", "--weights", "no.pth"], 2, "no.pth"),
    "weights a folder": (["classify", "PHOTO", "--weights", str(ROOT)], 2, str(ROOT)),
    "none published": (
        ["classify", "PHOTO", "--model", "alexnet_2012"],
        2,
        "no trained weights are published for 'alexnet_2012'",
    ),
    "top zero": (["classify", "PHOTO", "--top", "0"], 2, "--top"),
    "top a word": (["classify", "PHOTO", "--top", "five"], 2, "--top"),
    "batch negative": (["classify", "PHOTO", "--batch", "-2"], 2, "--batch"),
    "threads zero": (["classify", "PHOTO", "--threads", "0"], 2, "--threads"),
    "threads many": (["classify", "PHOTO", "--threads", "100000"], 2, "threads is 100000"),
    "json and csv": (["classify", "PHOTO", "--json", "--csv"], 2, "one of --json and --csv"),
    "two standard inputs": (["classify", "-", "-"], 2, "give it once"),
    "unknown flag": (["classify", "PHOTO", "--fast"], 2, "--fast"),
    "unknown command": (["clasify", "PHOTO"], 2, "clasify"),
    "inspect nothing": (["inspect"], 2, "Missing argument"),
    "inspect unknown": (["inspect", "lenet"], 2, "no network 'lenet'"),
    "inspect bad size": (["inspect", "resnet18", "--input", "big"], 2, "--input is 'big'"),
    "inspect zero size": (["inspect", "resnet18", "--input", "0x9"], 2, "1 to 65536"),
    "inspect too small": (["inspect", "alexnet", "--input", "8x8"], 2, "in features."),
    "explain unknown layer": (["explain", "resnet18", "layer9"], 2, "no layer 'layer9'"),
    "explain folded layer": (
        ["explain", "resnet18", "bn1", "--at", "asm", "--input", "64"],
        2,
        "no kernel of its own",
    ),
    "explain unknown stage": (["explain", "resnet18", "conv1", "--at", "c"], 2, "--at"),
    "explain unknown target": (
        ["explain", "resnet18", "conv1", "--target", "sse"],
        2,
        "--target",
    ),
    "bench unknown": (["bench", "resnet"], 2, "no network 'resnet'"),
    "compile to nowhere": (["compile", "resnet18"], 2, "--output"),
    "compile unknown": (["compile", "resnet", "-o", "x.striate"], 2, "no network 'resnet'"),
    "compile into no folder": (
        ["compile", "efficientnet_lite0", "-o", "none/x.striate", "--input", "32"],
        2,
        "none/x.striate cannot be written",
    ),
    "compile without weights": (
        ["compile", "squeezenet1_1", "-o", "x.striate", "--weights", "no.pth"],
        2,
        "no.pth",
    ),
    "no compiled network": (
        ["classify", "PHOTO", "--model", "no.striate"],
        2,
        "no.striate: no such file",
    ),
    "compiled, and weights": (
        ["classify", "PHOTO", "--model", "no.striate", "--weights", "x.pth"],
        2,
        "has its weights in it",
    ),
    "inspect where there is no cell": (
        ["inspect", "alexnet", "--plot", "x.png", "--cell", "1,1"],
        2,
        "--cell is for --what field",
    ),
    "dense, no image": (["dense", "nowhere.jpg", "-o", "x.png"], 2, "nowhere.jpg: no such file"),
    "dense, empty name": (["dense", "", "-o", "x.png"], 2, "an empty name names no image"),
    "dense to nowhere": (["dense", "PHOTO"], 2, "--output"),
    "dense to no folder": (["dense", "PHOTO", "-o", "none/x.png"], 2, "there is no folder none"),
    "dense without weights": (
        ["dense", "PHOTO", "-o", "x.png", "--model", "alexnet_2012"],
        2,
        "no trained weights are published for 'alexnet_2012'",
    ),
    "hypercolumns, no image": (
        ["hypercolumns", "nowhere.jpg", "-o", "x.npz"],
        2,
        "nowhere.jpg: no such file",
    ),
    "hypercolumns of a near layer": (
        ["hypercolumns", "PHOTO", "-o", "x.npz", "--layers", "blocks.3"],
        2,
        "did you mean _blocks.3",
    ),
    "hypercolumns of no layer": (
        ["hypercolumns", "PHOTO", "-o", "x.npz", "--layers", ""],
        2,
        "--layers is ''",
    ),
    "hypercolumns of scores": (
        ["hypercolumns", "PHOTO", "-o", "x.npz", "--layers", "_fc"],
        2,
        "'_fc' is no map of the image's pixels",
    ),
    "segment, no image": (
        ["segment", "nowhere.jpg", "-o", "x.png", "--regions", "2"],
        2,
        "nowhere.jpg: no such file",
    ),
    "segment into no folder": (
        ["segment", "PHOTO", "-o", "none/x.png", "--regions", "2"],
        2,
        "there is no folder none",
    ),
    "segment into too many": (
        ["segment", "PHOTO", "-o", "x.png", "--regions", "257"],
        2,
        "--regions",
    ),
    "evaluate nothing": (["evaluate", "resnet18"], 2, "--data"),
    "evaluate no folder": (
        ["evaluate", "efficientnet_lite0", "--data", "nowhere"],
        2,
        "nowhere: no such file or folder",
    ),
    "evaluate a photo": (
        ["evaluate", "efficientnet_lite0", "--data", "PHOTO"],
        2,
        "it is not text",
    ),
    "bench no threads": (["bench", "resnet18", "--threads", "-1"], 2, "--threads"),
}

IMAGE = np.zeros((1, 8, 8, 4), np.float32)
FILTER = np.zeros((3, 3, 4, 2), np.float32)

# What is done in Python, and what is said.
CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "no equation": (lambda: st.equation(""), "an equation has the form"),
    "not an equation": (lambda: st.equation("convolve x with k"), "does not read at column 10"),
    "code": (
        lambda: st.equation("y[b] = __import__('os').system('true')"),
        "not part of the notation",
    ),
    "comparison": (lambda: st.equation("y[b] == x[b]"), "with one equals sign"),
    "non-affine": (lambda: st.equation("y[p] = x[p*p]"), "p * p in x[p * p] is not affine"),
    "product of indices": (lambda: st.equation("y[p,q] = x[p*q]"), "is not affine"),
    "unbound index": (lambda: st.equation("y[p] = x[p, u]"), "index u in x[p, u] is neither"),
    "twice in the output": (lambda: st.equation("y[p,p] = x[p]"), "index p occurs more than once"),
    "unknown function": (
        lambda: st.equation("y[p] = gelu(x[p])"),
        "no function gelu; did you mean relu?",
    ),
    "wrong arity": (lambda: st.equation("y[p] = relu(x[p], 2)"), "relu takes 1"),
    "missing operand": (
        lambda: st.equation("y[p] = x[p] + z[p]")(x=IMAGE[0, 0, 0]),
        "operand z is missing",
    ),
    "unknown operand": (
        lambda: st.equation("y[p] = x[p]")(x=IMAGE[0, 0, 0], k=IMAGE),
        "operand k is given",
    ),
    "disagreeing sizes": (
        lambda: st.equation("y[p] = x[p] + z[p]")(x=np.zeros(3, "f4"), z=np.zeros(4, "f4")),
        "index p has size 3 by axis 0 of x[p], but 4 by axis 0 of z[p]",
    ),
    "wrong rank": (lambda: st.equation("y[p] = x[p]")(x=IMAGE), "x[p] has 1 indices, but x has 4"),
    "undetermined size": (
        lambda: st.equation("y[p] = sum[u](x[p+u])")(x=np.zeros(9, "f4")),
        "nothing determines the size of index",
    ),
    "not an array": (lambda: st.equation("y[p] = x[p]")(x="abc"), "expected"),
    "filter of other features": (
        lambda: st.conv2d(IMAGE, np.zeros((3, 3, 5, 2), np.float32)),
        "4 features",
    ),
    "stride zero": (lambda: st.conv2d(IMAGE, FILTER, stride=0), "stride is 0; expected"),
    "stride of halves": (lambda: st.conv2d(IMAGE, FILTER, stride=1.5), "stride is 1.5; expected"),
    "negative padding": (lambda: st.conv2d(IMAGE, FILTER, padding=-1), "padding is -1; expected"),
    "unknown padding": (
        lambda: st.conv2d(IMAGE, FILTER, padding="full"),
        "padding is 'full'; expected",
    ),
    "dilation zero": (lambda: st.conv2d(IMAGE, FILTER, dilation=0), "dilation is 0; expected"),
    "groups that do not divide": (
        lambda: st.conv2d(IMAGE, FILTER, groups=3),
        "in each of 3 groups",
    ),
    "filter larger than image": (
        lambda: st.conv2d(IMAGE, np.zeros((9, 9, 4, 2), np.float32)),
        "p+u reaches over 9 places, but the axis has 8",
    ),
    "bias of another length": (
        lambda: st.conv2d(IMAGE, FILTER, np.zeros(3, np.float32)),
        "bias has shape [3]; expected [2]",
    ),
    "image of two axes": (lambda: st.conv2d(IMAGE[0, 0], FILTER), "expected 4: [b,x,y,i]"),
    "complex numbers": (lambda: st.relu(IMAGE.astype(np.complex64)), "complex64"),
    "text as numbers": (lambda: st.relu(np.array(["a"])), "expected float32"),
    "unknown layout": (
        lambda: st.conv2d(IMAGE, FILTER, layout="CHWN"),
        "layout is 'CHWN'; expected",
    ),
    "pool larger than image": (lambda: st.max_pool2d(IMAGE, 20), "reaches over 20 places"),
    "classes zero": (lambda: st.models.create("resnet18", classes=0), "classes is 0; expected"),
    "unknown network": (lambda: st.models.create("resnet19"), "did you mean resnet18"),
    "no axis": (lambda: st.concatenate([]), "expected at least one"),
    "network on a wrong image": (
        lambda: st.models.create("squeezenet1_1")(np.zeros((1, 64, 64, 1), np.float32)),
        "expected features = groups * 3",
    ),
}


def run(*arguments: str, input: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error; no traceback and no fault in any of them."""
    result = CliRunner().invoke(app, list(arguments), input=input)
    if result.exception is not None:
        assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "unexpected error" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_the_table_is_long() -> None:
    assert len(IMAGES) + len(WEIGHTS) + len(FLAGS) + len(CALLS) >= 80


@pytest.mark.parametrize("case", IMAGES)
def test_bad_image(case: str, tmp_path: Path) -> None:
    name, content, said = IMAGES[case]
    path = tmp_path / name
    path.write_bytes(content)
    code, out, err = run("classify", str(path))
    assert (code, out) == (2, "")
    assert said in err
    assert str(path) in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("case", ["empty", "text", "cut off jpeg", "bomb"])
def test_bad_image_on_standard_input(case: str) -> None:
    code, out, err = run("classify", "-", input=IMAGES[case][1])
    assert (code, out) == (2, "")
    assert "standard input" in err


def test_bad_images_among_good_ones(tmp_path: Path) -> None:
    for name, content, _ in IMAGES.values():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.png").write_bytes(COFFEE.read_bytes())
    code, out, err = run("classify", str(tmp_path), "--csv", "--top", "1", "--batch", "3")
    assert code == 1
    assert "good.png,1,967" in out
    # EPS is no name of an image in a folder.
    assert err.count("striate: ") == len(IMAGES) - 1


@pytest.mark.parametrize("case", WEIGHTS)
def test_bad_weights(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, content, said = WEIGHTS[case]
    Path(name).write_bytes(content)
    code, out, err = run("classify", str(COFFEE), "--model", "squeezenet1_1", "--weights", name)
    assert (code, out) == (2, "")
    assert said in err
    assert not Path("STRIATE-WAS-HERE").exists()


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    st.weights.write_safetensors(path, st.models.create("squeezenet1_0").state_dict())
    code, _, err = run("classify", str(COFFEE), "--model", "squeezenet1_1", "--weights", str(path))
    assert code == 2
    assert "of another shape" in err


@pytest.mark.parametrize("case", FLAGS)
def test_bad_arguments(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected, said = FLAGS[case]
    code, out, err = run(*[str(COFFEE) if a == "PHOTO" else a for a in arguments])
    assert (code, out) == (expected, "")
    assert said in err


def test_empty_folder(tmp_path: Path) -> None:
    code, _, err = run("classify", str(tmp_path))
    assert code == 2
    assert "no images in this folder" in err


def test_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    code, _, err = run("classify", str(tmp_path))
    assert code == 2
    assert "no images in this folder" in err


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_bad_number_of_threads_in_the_environment(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIATE_THREADS", value)
    code, _, err = run("bench", "squeezenet1_1", "--input", "64")
    assert code == 2
    assert "STRIATE_THREADS" in err


@pytest.mark.parametrize("case", CALLS)
def test_bad_call(case: str) -> None:
    call, said = CALLS[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["classify", "nowhere.jpg"], 2, "nowhere.jpg: no such file"),
        (["classify", str(ROOT / "README.md")], 2, "not an image"),
        (["classify", str(COFFEE), "nowhere.jpg"], 1, "nowhere.jpg: no such file"),
        (["classify", "-"], 2, "standard input"),
        (["explain", "resnet18", "conv9"], 2, "Did you mean conv1 "),
        (["inspect", "resnet18", "--input", "1x"], 2, "--input is '1x'"),
    ],
)
def test_in_a_process_of_its_own(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [*STRIATE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
