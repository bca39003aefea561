"""Kernels compiled by helpers: the same code as here, and no harm where a helper fails."""

import sys

import pytest

from striate.compiler import parallel
from striate.compiler.codegen import object_code
from striate.compiler.parallel import FEWEST_WAITING, Compilers
from striate.compiler.target import Target

COUNT = 3 * FEWEST_WAITING


def ir(number: int) -> str:
    return f"define i64 @f{number}() {{ ret i64 {number} }}"


def compiled(helpers: int, count: int = COUNT) -> dict[str, bytes]:
    with Compilers(Target.host(), helpers) as compilers:
        for number in range(count):
            compilers.add(f"f{number}", lambda number=number: ir(number))  # type: ignore[misc]
        return compilers.finish()


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    return {f"f{number}": object_code(ir(number), Target.host()) for number in range(COUNT)}


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_helpers_compile_the_same(helpers: int, expected: dict[str, bytes]) -> None:
    assert compiled(helpers) == expected


def test_a_helper_is_really_at_work(
    expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled here while helpers take their part."""
    here = []

    def counted(text: str, target: Target) -> bytes:
        here.append(text)
        return object_code(text, target)

    monkeypatch.setattr(parallel, "object_code", counted)
    with Compilers(Target.host(), 1) as compilers:
        for number in range(COUNT):
            compilers.add(f"f{number}", lambda number=number: ir(number))  # type: ignore[misc]
        while len(compilers._done) < FEWEST_WAITING:
            pass
        assert not here
        assert compilers.finish() == expected


@pytest.mark.parametrize("command", ["import sys; sys.exit(1)", "print('noise' * 99)", "1 / 0"])
def test_a_helper_that_fails_is_not_missed(
    command: str, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_COMMAND", command)
    assert compiled(2) == expected


@pytest.mark.parametrize("interpreter", ["", "/no/such/python"])
def test_without_an_interpreter_to_start(
    interpreter: str, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    assert compiled(2) == expected


def test_few_kernels_start_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise AssertionError("a helper was started")

    monkeypatch.setattr(parallel, "_start", start)
    assert len(compiled(3, FEWEST_WAITING - 1)) == FEWEST_WAITING - 1


def test_an_error_in_the_code_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ir", lambda number: "this is no IR")
    with pytest.raises(RuntimeError):
        compiled(1)


def test_giving_up_ends_the_helpers() -> None:
    compilers = Compilers(Target.host(), 2)
    with compilers:
        for number in range(COUNT):
            compilers.add(f"f{number}", lambda number=number: ir(number))  # type: ignore[misc]
    assert compilers._threads
    assert not any(thread.is_alive() for thread in compilers._threads)
