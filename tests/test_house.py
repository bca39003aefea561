"""The house rules that a tool can hold: the order of the folders, a quick import, sane settings."""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "striate"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_in_order() -> list[str]:
    """The folders, and modules that they use, in the order of the table in docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)(?:/|\.py)` \|", page, flags=re.MULTILINE)


def imported(source: str) -> set[str]:
    """Every module of the package that `source` imports, also those imported inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports within the package are absolute"
            module = node.module or ""
            names.add(module)
            if module == "striate":
                names.update(f"striate.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] == "striate"}


def out_of_order(folder: str, source: str, order: list[str]) -> set[str]:
    """The imports of `source`, a module in `folder`, from neither that folder nor one above."""
    allowed = set(order[: order.index(folder) + 1])
    parts = {name: name.split(".") for name in imported(source)}
    return {name for name, part in parts.items() if len(part) < 2 or part[1] not in allowed}


def test_architecture_names_every_folder() -> None:
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert there <= set(folders_in_order()) <= there | beside


@pytest.mark.parametrize("folder", folders_in_order()[:-1])
def test_folder_imports_only_from_those_above_it(folder: str) -> None:
    order = folders_in_order()
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in [PACKAGE / f"{folder}.py", *sorted((PACKAGE / folder).rglob("*.py"))]
        if path.is_file()
        for name in out_of_order(folder, path.read_text(encoding="utf-8"), order)
    }
    assert not wrong


def test_an_import_from_below_would_be_seen() -> None:
    order = folders_in_order()
    source = "def f():\n    from striate.compiler.target import Target\n"
    assert out_of_order("notation", source, order) == {"striate.compiler.target"}
    assert out_of_order("runtime", source, order) == set()
    assert out_of_order("layers", "from striate import models\n", order)
    assert out_of_order("cli", "import striate.models.registry\n", order) == set()


def python(code: str) -> str:
    """What `code` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_import_is_quick() -> None:
    code = "import time; t = time.process_time(); import striate; print(time.process_time() - t)"
    seconds = statistics.median(float(python(code)) for _ in range(5))
    assert seconds < 0.3


@pytest.mark.parametrize("module", ["striate", "striate.cli.main"])
def test_import_loads_no_llvm(module: str) -> None:
    loaded = python(f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    assert not [name for name in loaded if name.split(".")[0] == "llvmlite"]


def test_command_line_imports_only_itself_before_it_runs() -> None:
    heavy = {"numpy", "PIL", "rich", "httpx", "safetensors", "llvmlite", "matplotlib"}
    loaded = python("import sys, striate.cli.main; print(*sys.modules)").split()
    assert not heavy & set(loaded)


def test_checks_are_strict() -> None:
    tool = SETTINGS["tool"]
    assert tool["mypy"]["strict"] is True
    assert tool["ruff"]["line-length"] == 100
    assert {"E", "F", "I", "UP", "B", "D"} <= set(tool["ruff"]["lint"]["select"])
    assert "error" in tool["pytest"]["ini_options"]["filterwarnings"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for check in ("ruff format --check", "ruff check", "mypy --strict src", "pytest"):
        assert check in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_package_says_its_types_and_version() -> None:
    import striate

    assert (PACKAGE / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", striate.__version__)
    assert SETTINGS["tool"]["hatch"]["version"]["path"] == "src/striate/__init__.py"


def test_every_public_name_exists() -> None:
    import striate

    assert striate.__all__
    for name in striate.__all__:
        assert getattr(striate, name) is not None
    assert set(striate.__all__) <= set(dir(striate))
    with pytest.raises(AttributeError, match="no attribute 'konv2d'"):
        _ = striate.konv2d
